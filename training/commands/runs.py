"""``segmamba runs``: list the runs of a results folder, show one, compare several."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model_core.cli import examples, out, say_warning
from model_core.errors import OptionError

if TYPE_CHECKING:
    from training.runs.compare import Run
    from training.runs.summary import FoldSet, RunSummary

JSON_SCHEMA = "segmamba-runs/1"


@examples(
    "segmamba runs",
    "segmamba runs first",
    "segmamba runs first second --plot curves.png",
    "segmamba runs cv --json",
    "segmamba runs first --report shareable.html",
)
def runs(
    run: Annotated[
        list[str] | None,
        typer.Argument(help="Runs to show or compare: names inside --out, or their folders."),
    ] = None,
    results: Annotated[Path, typer.Option("--out", help="Folder of all runs.")] = Path("results"),
    plot: Annotated[
        Path | None,
        typer.Option(help="Write the runs' loss and validation Dice, overlaid, to this PNG."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write the run's report without pictures of patients to this HTML file: one to "
            "pass on."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List training runs, show one of them, or compare several.

    Without a name: every run under --out, the latest first, cross-validations with their folds.
    With one name: its scores, cases and files. With several: where their settings differ, and
    their scores side by side.

    *Best* is the highest mean Dice of an evaluation on the way, which also chose the weights; for
    folds it is mean ± sample standard deviation.
    """
    from training.runs.summary import find_runs

    chosen = [_named(name, results) for name in run or []]
    shown = chosen or list(find_runs(results))
    if plot is not None:
        _plot(shown, plot)
    if report is not None:
        _report(chosen, report)
    if as_json:
        typer.echo(json.dumps(_plain(shown, compare=len(chosen) > 1), indent=2))
    elif not shown:
        out().print(f"No runs in {results}. Start one: segmamba train --help")
    elif not chosen:
        _show_list(shown)
    elif len(chosen) == 1:
        _show_one(chosen[0])
    else:
        _show_comparison(chosen)


def _named(name: str, results: Path) -> Run:
    """The run called `name` under `results`, else the one in the folder `name`."""
    from training.runs.summary import read_run

    called = Path(name).name if Path(name).is_absolute() else name
    for path in (results / name, Path(name)):
        found = read_run(path, called) if path.is_dir() else None
        if found is not None:
            return found
    raise OptionError(
        "run",
        expected=f"the name of a run in {results.name or 'the results folder'}, or its folder",
        got=repr(name),
        way_out="segmamba runs lists them; --out names another results folder.",
    )


def _plot(shown: Sequence[Run], path: Path) -> None:
    from training.runs.compare import draw_overlay

    _require_folder(path, "plot")
    if not shown:
        raise OptionError(
            "plot", expected="a run to draw", got="none", way_out="Name one, or check --out."
        )
    draw_overlay(shown, path)


def _report(chosen: Sequence[Run], path: Path) -> None:
    from training.runs.report import write_report
    from training.runs.run_folder import RunFolder
    from training.runs.summary import members

    _require_folder(path, "report")
    if len(chosen) != 1 or len(members(chosen[0])) != 1:
        raise OptionError(
            "report",
            expected="one run",
            got=f"{len(chosen)} runs" if len(chosen) != 1 else "a set of folds",
            way_out="For example: segmamba runs cv/fold_0 --report fold_0.html.",
        )
    write_report(RunFolder(members(chosen[0])[0].path), path, images=False)


def _require_folder(path: Path, option: str) -> None:
    if not path.absolute().parent.is_dir():
        raise OptionError(
            option,
            expected="a file in an existing folder",
            got="a folder that does not exist",
            way_out="Create the folder first.",
        )


def _plain(shown: Sequence[Run], *, compare: bool) -> dict[str, Any]:
    from training.runs.compare import config_differences

    values: dict[str, Any] = {"schema": JSON_SCHEMA, "runs": [run.to_json() for run in shown]}
    if compare:
        values["differences"] = {name: list(row) for name, row in config_differences(shown).items()}
    return values


# ---------------------------------------------------------------- a list


def _show_list(shown: Sequence[Run]) -> None:
    from rich import box
    from rich.table import Table

    from training.runs.summary import FoldSet

    console = out()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold")
    table.add_column("recipe (network)", overflow="fold")
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("best Dice", justify="right", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    for run in shown:
        if isinstance(run, FoldSet):
            table.add_row(*_set_row(run), style="bold")
            for fold in run.folds:
                table.add_row(*_row(fold, f"  {fold.path.name}", trains=""))
        else:
            table.add_row(*_row(run, run.name, trains=_trains(run)))
    console.print(table)
    damaged = [run.name for run in shown if getattr(run, "state", "") == "unreadable"]
    if damaged:
        say_warning(f"config.json cannot be read in: {', '.join(damaged)}")


def _row(run: RunSummary, name: str, *, trains: str) -> tuple[str, ...]:
    best = "–" if run.best is None else f"{run.best:.3f}"
    return (name, trains, _steps(run), run.state, best, _age(run.age_seconds))


def _trains(run: RunSummary) -> str:
    return f"{run.recipe} ({run.network})"


def _set_row(run: FoldSet) -> tuple[str, ...]:
    from training.runs.summary import last_change

    first = run.folds[0]
    latest = min(fold.age_seconds for fold in run.folds if fold.changed == last_change(run))
    states = {fold.state for fold in run.folds}
    state = states.pop() if len(states) == 1 else "running" if "running" in states else "stopped"
    folds = f"{len(run.folds)} fold{'s' * (len(run.folds) != 1)}"
    best = _mean_sd(run.scores.get("mean"))
    return (run.name, _trains(first), folds, state, best, _age(latest))


def _steps(run: RunSummary) -> str:
    return f"{run.step}" if run.steps is None else f"{run.step}/{run.steps}"


def _age(seconds: float) -> str:
    from training.runs.reporter import duration

    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.0f} days"
    return duration(seconds)


def _mean_sd(score: tuple[float, float | None] | None) -> str:
    if score is None:
        return "–"
    mean, sd = score
    return f"{mean:.3f}" if sd is None else f"{mean:.3f} ± {sd:.3f}"


# ---------------------------------------------------------------- one run


def _show_one(run: Run) -> None:
    from training.runs.compare import score_rows
    from training.runs.summary import FoldSet

    if isinstance(run, FoldSet):
        _show_list([run])
        _show_scores([run], score_rows([run]))
        _show_out_of_fold(run)
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    best = "none yet" if run.best is None else f"{run.best:.3f} at step {run.best_step}"
    for name, value in (
        ("run", run.name),
        ("trains", f"{run.network}, recipe {run.recipe}"),
        ("state", f"{run.state}, last written {_age(run.age_seconds)} ago"),
        ("steps", f"{_steps(run)} in {run.hours:.1f} h"),
        ("best mean Dice", best),
    ):
        table.add_row(name, value)
    console = out()
    console.print(table)
    _show_cases(run)
    _show_final(run)
    console.print(f"files: {run.path}", soft_wrap=True)
    for name in ("report.html", "plots/training_curves.png", "checkpoints/best.pt"):
        if (run.path / name).is_file():
            console.print(f"  {name}", soft_wrap=True)


def _show_out_of_fold(run: FoldSet) -> None:
    """All cases together, each predicted by the fold that had not seen it."""
    if not run.out_of_fold:
        return
    table = _table("out-of-fold Dice, over the cases", "region", ["mean ± sd", "cases"])
    for region, score in run.out_of_fold.items():
        table.add_row(region, _mean_sd((score["mean"], score.get("sd"))), str(score.get("n", "")))
    out().print(table)


def _show_cases(run: RunSummary) -> None:
    """The best evaluation, case by case."""
    from training.runs.run_folder import RunFolder
    from training.runs.series import best_of, evaluations

    best = best_of(evaluations(RunFolder(run.path)))
    if best is None or not best.mean:
        return
    table = _table(f"Dice at step {best.step}", "case", list(best.mean))
    for case, scores in best.cases.items():
        table.add_row(case, *(_score(scores.get(region)) for region in best.mean))
    table.add_section()
    table.add_row("mean", *(_score(value) for value in best.mean.values()), style="bold")
    out().print(table)


def _show_final(run: RunSummary) -> None:
    """The final evaluation: mean of the cases per region and score."""
    if not run.final:
        return
    scores = list(dict.fromkeys(name for region in run.final.values() for name in region))
    kept = [name for name in scores if name in ("dice", "hd95_mm", "lesion_dice", "sensitivity")]
    table = _table("final evaluation, mean of the cases", "region", kept or scores)
    for region, values in run.final.items():
        table.add_row(region, *(_score(values.get(name)) for name in kept or scores))
    out().print(table)


def _table(title: str, first: str, columns: Sequence[str]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


# ---------------------------------------------------------------- several runs


def _show_comparison(chosen: Sequence[Run]) -> None:
    from training.runs.compare import config_differences, score_rows

    table = _table("settings that differ", "setting", [run.name for run in chosen])
    differences = config_differences(chosen)
    for name, row in differences.items():
        table.add_row(name, *(_setting(value) for value in row))
    console = out()
    console.print(table if differences else "Their settings are the same.")
    _show_scores(chosen, score_rows(chosen))


def _show_scores(
    chosen: Sequence[Run], rows: dict[str, tuple[tuple[float, float | None] | None, ...]]
) -> None:
    if not rows:
        out().print("None of them has been judged yet.")
        return
    table = _table("scores", "score", [run.name for run in chosen])
    for name, row in rows.items():
        table.add_row(name, *(_mean_sd(score) for score in row))
    out().print(table)


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
