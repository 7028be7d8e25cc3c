"""A run in one line: what it trained, how far it came, how good it is, what state it is in.

Read from the run's own files as plain JSON, so that a run of another release, or one that lacks a
file, is listed as well as it can be.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from training.runs.run_folder import RunFolder, read_json
from training.runs.series import Evaluation, best_of, evaluations

State = Literal["running", "stopped", "finished", "not started", "unreadable"]

_SILENCE_SECONDS = 900.0
"""Without a lock to ask: a run that has written nothing for so long is taken to have stopped."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run, or one fold of a set.

    Args:
        name: as it is called under the results folder, e.g. ``first`` or ``cv/fold_0``.
        path: its folder.
        recipe, network: as in its config.
        step, steps: done and planned.
        state: whether a process works on it, or it has come to its end.
        best: highest mean Dice of an evaluation on the way, and its step and regions.
        final: per region and score, the mean of the final evaluation.
        hours: of training so far.
        changed: when it last wrote something, in seconds since 1970.
    """

    name: str
    path: Path
    recipe: str = "?"
    network: str = "?"
    step: int = 0
    steps: int | None = None
    state: State = "unreadable"
    best: float | None = None
    best_step: int | None = None
    regions: Mapping[str, float] = field(default_factory=dict)
    final: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    hours: float = 0.0
    changed: float = 0.0

    @property
    def age_seconds(self) -> float:
        """Since it last wrote something."""
        return max(0.0, time.time() - self.changed)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {**asdict(self), "path": str(self.path)}
        values["changed"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.changed))
        return values


@dataclass(frozen=True, kw_only=True)
class FoldSet:
    """The folds of one cross-validation."""

    name: str
    path: Path
    folds: tuple[RunSummary, ...]

    @property
    def scores(self) -> dict[str, tuple[float, float | None]]:
        """Mean and standard deviation (n − 1) over the folds of the best Dice, per region.

        The mean of the regions comes first, as ``mean``; folds without an evaluation are left out.
        """
        judged = [fold for fold in self.folds if fold.best is not None]
        columns: dict[str, list[float]] = {"mean": [fold.best or 0.0 for fold in judged]}
        for fold in judged:
            for region, dice in fold.regions.items():
                columns.setdefault(region, []).append(dice)
        return {name: spread(values) for name, values in columns.items() if values}

    @property
    def out_of_fold(self) -> dict[str, Any]:
        """Dice per region over all cases, each judged by the fold that had not seen it.

        ``{region: {"mean": …, "sd": …, "n": …}}``; empty until all folds are finished.
        """
        return dict((read_json(self.path / "cross_validation.json") or {}).get("dice") or {})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        scores = {name: {"mean": mean, "sd": sd} for name, (mean, sd) in self.scores.items()}
        return {
            "name": self.name,
            "path": str(self.path),
            "best_over_folds": scores,
            "out_of_fold": self.out_of_fold,
            "folds": [fold.to_json() for fold in self.folds],
        }


def find_runs(results: Path) -> tuple[RunSummary | FoldSet, ...]:
    """Every run in a results folder, the one that wrote last first."""
    if not results.is_dir():
        return ()
    found = [
        run for path in results.iterdir() if path.is_dir() and (run := read_run(path)) is not None
    ]
    return tuple(sorted(found, key=lambda run: -last_change(run)))


def read_run(path: Path, name: str | None = None) -> RunSummary | FoldSet | None:
    """The run, or the set of folds, in the folder `path`; ``None`` if it is neither."""
    name = name or path.name
    if (path / "config.json").is_file():
        return summarise_run(RunFolder(path), name)
    folds = sorted(path.glob("fold_*/config.json"), key=lambda file: _number(file.parent.name))
    if not folds:
        return None
    runs = (RunFolder(file.parent) for file in folds)
    return FoldSet(
        name=name,
        path=path,
        folds=tuple(summarise_run(run, f"{name}/{run.path.name}") for run in runs),
    )


def members(run: RunSummary | FoldSet) -> tuple[RunSummary, ...]:
    """A run itself, or the folds of a set."""
    return run.folds if isinstance(run, FoldSet) else (run,)


def last_change(run: RunSummary | FoldSet) -> float:
    """When any of its files was last written, in seconds since 1970."""
    return max(one.changed for one in members(run))


def summarise_run(folder: RunFolder, name: str) -> RunSummary:
    """One run from its files."""
    config = read_json(folder.config)
    changed = _changed(folder)
    if config is None:
        return RunSummary(name=name, path=folder.path, changed=changed)
    steps, best = folder.records("step"), best_of(evaluations(folder))
    planned = config.get("steps")
    done = max((_step(line) for kind in _COUNTED for line in folder.records(kind)), default=0)
    return RunSummary(
        name=name,
        path=folder.path,
        recipe=str(config.get("recipe", "?")),
        network=str(config.get("network", "?")),
        step=done,
        steps=planned if isinstance(planned, int) else None,
        state=state_of(folder, done, planned),
        **_best(best),
        final=final_means(read_json(folder.final_metrics)),
        hours=float(steps[-1].get("elapsed") or 0.0) / 3600 if steps else 0.0,
        changed=changed,
    )


def state_of(folder: RunFolder, done: int, planned: Any) -> State:
    """Running as long as a process holds it; finished if it came to its end; else stopped."""
    working = folder.is_at_work()
    if working:
        return "running"
    if _finished(folder, done, planned):
        return "finished"
    if folder.records("end"):
        return "stopped"
    silent = time.time() - _changed(folder) > _SILENCE_SECONDS
    if working is None and done and not silent:
        return "running"
    return "stopped" if done else "not started"


def final_means(final: Mapping[str, Any] | None) -> dict[str, dict[str, float]]:
    """Mean per region and score out of ``final_metrics.json``."""
    summary = (final or {}).get("summary") or {}
    means: dict[str, dict[str, float]] = {}
    for region, scores in summary.items():
        for name, spread_of in scores.items():
            value = spread_of.get("mean") if isinstance(spread_of, Mapping) else spread_of
            if isinstance(value, int | float):
                means.setdefault(region, {})[name] = float(value)
    return means


def spread(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation, which one value has not."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


_COUNTED = ("step", "validation", "end")


def _best(best: Evaluation | None) -> dict[str, Any]:
    if best is None:
        return {}
    return {"best": best.score, "best_step": best.step, "regions": dict(best.mean)}


def _finished(folder: RunFolder, done: int, planned: Any) -> bool:
    """Its end is recorded.

    In a run of an earlier release: its steps or its time are used up, or it was judged after its
    last step.
    """
    ends = folder.records("end")
    if ends or folder.lock.exists():
        return bool(ends) and ends[-1].get("reason") != "stopped"
    if isinstance(planned, int) and done >= planned > 0:
        return True
    over = max((float(line.get("progress") or 0) for line in folder.records("step")), default=0.0)
    if over >= 1:
        return True
    if not (folder.final_metrics.is_file() and folder.metrics.is_file()):
        return False
    return folder.final_metrics.stat().st_mtime >= folder.metrics.stat().st_mtime


def _changed(folder: RunFolder) -> float:
    files = (folder.metrics, folder.log, folder.final_metrics, folder.config)
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


def _step(line: Mapping[str, Any]) -> int:
    return int(line.get("step") or 0)


def _number(fold: str) -> tuple[int, str]:
    digits = fold.removeprefix("fold_")
    return (int(digits) if digits.isdigit() else 1 << 30, fold)
