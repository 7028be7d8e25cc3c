"""Runs beside each other: where their configs differ, what they score, their curves overlaid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.runs.palette import LINES, MARKS
from training.runs.plots import write_figure
from training.runs.run_folder import RunFolder, read_json
from training.runs.series import best_of, column, evaluations, smoothed
from training.runs.summary import FoldSet, RunSummary, members, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Run = RunSummary | FoldSet

ABSENT = "—"
"""Of a setting that a run's config does not have."""


def config_differences(runs: Sequence[Run]) -> dict[str, tuple[Any, ...]]:
    """Dotted setting → its value in each run, for the settings in which they differ.

    A set of folds counts as one run, for which its first fold speaks.
    """
    configs = [flat(read_json(members(run)[0].path / "config.json") or {}) for run in runs]
    names = dict.fromkeys(name for values in configs for name in values)
    rows = {name: tuple(values.get(name, ABSENT) for values in configs) for name in names}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}


def score_rows(runs: Sequence[Run]) -> dict[str, tuple[tuple[float, float | None] | None, ...]]:
    """Score → (mean, sd over folds) in each run, ``None`` where a run has none.

    First the best evaluation on the way (mean of the regions, then each), then what the final
    evaluation measured.
    """
    columns = [_scores(run) for run in runs]
    names = dict.fromkeys(name for scores in columns for name in scores)
    return {name: tuple(scores.get(name) for scores in columns) for name in names}


def draw_overlay(runs: Sequence[Run], path: Path) -> None:
    """Write smoothed losses and mean validation Dice of several runs as one PNG; folds are thin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for index, run in enumerate(runs):
        _draw_run(above, below, run, index)
    above.set_ylabel("training loss, smoothed")
    below.set(xlabel="step", ylabel="validation Dice\n(mean of cases and regions)", ylim=(0, 1))
    for axes in (above, below):
        axes.grid(color="#E6E6E6", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    above.legend(loc="upper right", framealpha=0.9)
    if below.get_legend_handles_labels()[1]:
        below.legend(loc="lower right", framealpha=0.9)
    figure.align_ylabels()
    write_figure(figure, path)


def _draw_run(above: Axes, below: Axes, run: Run, index: int) -> None:
    colour, mark = LINES[index % len(LINES)], MARKS[index % len(MARKS)]
    dashes = "-" if index < len(LINES) else "--"
    each = members(run)
    look: dict[str, Any] = {"color": colour, "linestyle": dashes}
    thin = 0.8 if len(each) > 1 else 1.5
    for number, one in enumerate(each):
        folder = RunFolder(one.path)
        words = run.name if number == 0 else None
        at, losses = column(folder.records("step"), "loss")
        if at.size:
            above.plot(at, smoothed(losses), label=words, linewidth=thin, **look)
        found = evaluations(folder)
        best = best_of(found)
        if best is None:
            continue
        below.plot(
            [one.step for one in found], [one.score for one in found], marker=mark,
            markersize=4, linewidth=thin, label=words and f"{words}{_best_words(run)}", **look,
        )  # fmt: skip
        below.plot([best.step], [best.score], marker="*", markersize=12, color=colour,
                   markeredgecolor="black", linestyle="none", zorder=5)  # fmt: skip


def _best_words(run: Run) -> str:
    scores = _scores(run).get("best mean Dice")
    if scores is None:
        return ""
    mean, sd = scores
    return f" (best {mean:.3f} ± {sd:.3f})" if sd is not None else f" (best {mean:.3f})"


def _scores(run: Run) -> dict[str, tuple[float, float | None]]:
    """Every score of a run, mean and spread over its folds."""
    columns: dict[str, list[float]] = {}
    for one in members(run):
        if one.best is not None:
            columns.setdefault("best mean Dice", []).append(one.best)
        for region, dice in one.regions.items():
            columns.setdefault(f"best Dice {region}", []).append(dice)
        for region, scores in one.final.items():
            for name, value in scores.items():
                columns.setdefault(f"final {name} {region}", []).append(value)
    return {name: spread(values) for name, values in columns.items()}


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names; lists stay whole."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = value
    return found
