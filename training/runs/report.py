"""The report of a run: one HTML file that needs no other, no script and no network.

In the run's own folder it shows pictures of validation cases; a report to pass on leaves them out
(``images=False``). Cases are called by their `shown_names` either way, and no path is in it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from model_core.imaging.atomic import write_atomically
from training.naming import shown_names
from training.runs.compare import flat
from training.runs.plots import draw_curves
from training.runs.reporter import duration
from training.runs.run_folder import RunFolder, read_json
from training.runs.series import Evaluation, best_of, column, evaluations
from training.runs.summary import RunSummary, summarise_run

FINAL_SCORES: Final[Mapping[str, str]] = {
    "dice": "Dice",
    "hd95_mm": "HD95 (mm)",
    "lesion_dice": "lesion-wise Dice",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
"""Scores of the final evaluation that have a column, where the evaluation has them."""

Row = tuple[str, tuple[str, ...]]
"""Heading and cells."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of words: `columns` head the cells, `rows` begin with their heading."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    summary: tuple[Row, ...] = ()
    """Rows that sum up the others."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture as a data URI."""

    source: str
    alternative: str
    caption: str


def write_report(folder: RunFolder, target: Path | None = None, *, images: bool = True) -> Path:
    """Write the report of a run, finished or not.

    Args:
        folder: the run; its curves are drawn anew.
        target: the HTML file; by default ``report.html`` in the run.
        images: show pictures of validation cases. Leave them out of what you pass on.

    Returns:
        where it was written.
    """
    from jinja2 import Environment, StrictUndefined

    draw_curves(folder)
    target = target or folder.report
    source = files("training.runs").joinpath("templates", "report.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(source).render(**_content(folder, images=images))
    write_atomically(target, page.encode())
    return target


def _content(folder: RunFolder, *, images: bool) -> dict[str, Any]:
    """Everything the template names."""
    config = read_json(folder.config) or {}
    run = summarise_run(folder, _title(folder.path.resolve()))
    found = evaluations(folder)
    best = best_of(found)
    return {
        "run": run,
        "facts": _facts(folder, run, config),
        "data": _data(folder, config),
        "curves": _curves(folder, found),
        "images": images,
        "pictures": _pictures(folder, best) if images else [],
        "validation": _validation_table(best),
        "best": best,
        "final": final_tables(read_json(folder.final_metrics) or {}),
        "corrections": _corrections(folder),
        "environment": _environment_table(read_json(folder.environment) or {}),
        "config": [
            (name, value if isinstance(value, str) else json.dumps(value))
            for name, value in flat(config).items()
        ],
    }


def _title(path: Path) -> str:
    """The run's name, with its set's if it is a fold."""
    return f"{path.parent.name}/{path.name}" if path.name.startswith("fold_") else path.name


def _facts(folder: RunFolder, run: RunSummary, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was trained, in pairs of a term and its words."""
    task = config.get("task") or {}
    heads = {"regions": "overlapping regions", "labels": "exclusive labels"}
    patch = " × ".join(str(side) for side in config.get("patch") or ())
    planned = "" if run.steps is None else f" of {run.steps}"
    facts = [
        ("Network", run.network),
        ("Recipe", run.recipe),
        ("Input", ", ".join(task.get("channels") or ())),
        ("Predicts", f"{_names(task)} ({heads.get(task.get('heads', ''), 'labels')})"),
        ("Patch", f"{patch} voxels, {config.get('batch', '?')} at a time" if patch else ""),
        ("Begun from", config.get("initial") or "fresh weights"),
        ("State", _state(folder, run)),
        ("Steps", f"{run.step}{planned}"),
        ("Training time", duration(3600 * run.hours) if run.hours else ""),
        ("Time per step", _seconds_per_step(folder)),
    ]
    if run.best is not None:
        facts.append(("Best validation", f"mean Dice {run.best:.3f} after step {run.best_step}"))
    return [(term, words) for term, words in facts if words]


def _state(folder: RunFolder, run: RunSummary) -> str:
    """Of a run that writes this as its last deed: finished, though it is still at work."""
    judged = folder.final_metrics.is_file() and folder.metrics.is_file()
    if run.state == "running" and judged:
        last = folder.final_metrics.stat().st_mtime >= folder.metrics.stat().st_mtime
        return "finished" if last else run.state
    return run.state


def _names(task: Mapping[str, Any]) -> str:
    regions = [region.get("name", "?") for region in task.get("regions") or ()]
    return ", ".join(regions if task.get("heads") == "regions" else task.get("labels") or regions)


def _seconds_per_step(folder: RunFolder) -> str:
    import numpy as np

    _, seconds = column(folder.records("step"), "seconds")
    return f"{np.median(seconds):.3g} s (median of those recorded)" if seconds.size else ""


def _data(folder: RunFolder, config: Mapping[str, Any]) -> list[tuple[str, int, tuple[str, ...]]]:
    """Kind of cases, how many, and their shown names."""
    split = read_json(folder.split) or {}
    data: list[tuple[str, int, tuple[str, ...]]] = []
    for kind in ("training", "validation"):
        names = split.get(kind) or ()
        data.append((kind, len(names), shown_names([str(name) for name in names])))
    for kind, words in (("phantoms", "generated phantoms"), ("synthetic", "synthetic studies")):
        if config.get(kind):
            data.append((words, int(config[kind]), ()))
    return data


def _curves(folder: RunFolder, found: Sequence[Evaluation]) -> Figure | None:
    if not folder.curves.is_file():
        return None
    _, losses = column(folder.records("step"), "loss")
    words = []
    if losses.size:
        words.append(f"The training loss goes from {losses[0]:.3f} to {losses[-1]:.3f}.")
    best = best_of(found)
    if best is not None:
        words.append(
            f"Mean validation Dice goes from {found[0].score:.3f} at step {found[0].step} to "
            f"{found[-1].score:.3f} at step {found[-1].step}; the best is {best.score:.3f} at step "
            f"{best.step}."
        )
    told = " ".join(words)
    return Figure(source=_embedded(folder.curves), alternative=f"Curves. {told}", caption=told)


def _pictures(folder: RunFolder, best: Evaluation | None) -> list[Figure]:
    """Of the best evaluation and of the last one."""
    all_pictures = folder.validation_pictures()
    chosen = all_pictures[-1:]
    if best is not None:
        chosen = [p for p in all_pictures if p.stem.endswith(f"_step_{best.step:06d}")] + chosen
    figures = []
    for path in dict.fromkeys(chosen):
        step = int(path.stem.rpartition("_")[2])
        which = "best" if best is not None and step == best.step else "last"
        words = f"Validation cases at the {which} evaluation, after step {step}"
        alternative = f"{words}: truth beside prediction, Dice in the titles."
        figures.append(Figure(source=_embedded(path), alternative=alternative, caption=f"{words}."))
    return figures


def _embedded(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _validation_table(best: Evaluation | None) -> Table | None:
    """The best evaluation, case by case."""
    if best is None:
        return None
    regions = tuple(best.mean)
    rows = [(case, _cells(scores, regions)) for case, scores in best.cases.items()]
    return Table(
        caption=f"Dice of each validation case after step {best.step}, by the best weights",
        columns=regions,
        rows=tuple(rows),
        summary=(("mean", _cells(best.mean, regions)),),
    )


def final_tables(final: Mapping[str, Any]) -> list[Table]:
    """``final_metrics.json`` as two tables: means per region, then Dice and HD95 of each case."""
    cases = [case for case in final.get("cases") or () if case.get("regions")]
    if not cases:
        return []
    regions = tuple(cases[0]["regions"])
    known = [name for name in FINAL_SCORES if name in cases[0]["regions"][regions[0]]]
    summary = final.get("summary") or {}
    after = ", after the corrections in the config" if final.get("corrected") else ""
    over = f"{len(cases)} case" + "s" * (len(cases) > 1)
    means = Table(
        caption=f"Final evaluation on the cases' own grids, mean ± sd over {over}{after}",
        columns=tuple(FINAL_SCORES[name] for name in known),
        rows=tuple(
            (region, tuple(_mean_sd(name, scores.get(name)) for name in known))
            for region, scores in summary.items()
        ),
    )
    each = [(name, region) for name in known[:2] for region in regions]
    per_case = Table(
        caption="Final evaluation, case by case",
        columns=tuple(f"{region} {FINAL_SCORES[name]}" for name, region in each),
        rows=tuple(
            (
                str(case.get("case", "?")),
                tuple(_score(name, case["regions"].get(r, {}).get(name)) for name, r in each),
            )
            for case in cases
        ),
    )
    return [table for table in (means, per_case) if table.rows]


def _corrections(folder: RunFolder) -> dict[str, Any] | None:
    """What ``corrections.json`` of the run, or of its set of folds, changes and gains."""
    content = read_json(folder.path / "corrections.json")
    if content is None and folder.path.name.startswith("fold_"):
        content = read_json(folder.path.parent / "corrections.json")
    if content is None:
        return None
    evidence = content.get("evidence") or {}
    columns = {"before": "before", "after": "after", "left_out": "on cases left out"}
    shown = [name for name in columns if isinstance(evidence.get(name), dict)]
    regions = list(dict.fromkeys(region for name in shown for region in evidence[name]))
    table = Table(
        caption=str(evidence.get("what") or "Scores before and after the corrections"),
        columns=tuple(columns[name] for name in shown),
        rows=tuple(
            (region, tuple(_number(evidence[name].get(region)) for name in shown))
            for region in regions
        ),
    )
    return {
        "steps": [_step_in_words(step) for step in content.get("steps") or ()],
        "table": table if regions else None,
        "notes": [str(evidence[name]) for name in ("verdict", "warning") if evidence.get(name)],
    }


def _step_in_words(step: Mapping[str, Any]) -> str:
    params = (f"{name} {value}" for name, value in (step.get("params") or {}).items())
    return f"{step.get('name', '?')} {', '.join(params)}".strip()


def _environment_table(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs of a term and its words; earlier environments of a continued run are counted."""
    pairs: list[tuple[str, str]] = []
    for name, value in environment.items():
        if name == "earlier":
            pairs.append(("earlier parts of the run", f"{len(value)} in another environment"))
        elif isinstance(value, Mapping):
            pairs.append((name, _listed([value])))
        elif isinstance(value, list):
            pairs.append((name, _listed(value) or "none"))
        else:
            pairs.append((name, str(value)))
    return pairs


def _listed(values: Sequence[Any]) -> str:
    return "; ".join(
        ", ".join(
            str(inner) if key == "name" else f"{key.replace('_', ' ')} {inner}"
            for key, inner in value.items()
            if inner is not None
        )
        if isinstance(value, Mapping)
        else str(value)
        for value in values
    )


def _cells(scores: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(_number(scores.get(name)) for name in names)


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def _score(name: str, value: Any) -> str:
    """Millimetres to a tenth, shares to a thousandth."""
    return f"{value:.1f}" if name.endswith("_mm") and value is not None else _number(value)


def _mean_sd(name: str, spread: Any) -> str:
    if not isinstance(spread, Mapping):
        return _score(name, spread)
    mean, sd = spread.get("mean"), spread.get("sd")
    return _score(name, mean) if sd is None else f"{_score(name, mean)} ± {_score(name, sd)}"
