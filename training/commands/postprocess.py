"""``segmamba postprocess``: find corrections on out-of-fold predictions; apply them to files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from model_core.cli import epilog, err, out, say_error, say_warning
from model_core.errors import InputError, OptionError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from training.bars import Counted
    from training.data.dataset import Dataset
    from training.judge.find_corrections import Finding
    from training.judge.out_of_fold import Predicted
    from training.judge.scoreboard import Scoreboard

Objective = Literal["dice", "lesion-dice"]

postprocess = typer.Typer(
    name="postprocess",
    help="Find corrections of label maps on predictions that a model's training never saw, and "
    "apply them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@postprocess.command(
    epilog=epilog(
        "segmamba train small-segmamba --data BraTS2021 --fold all --name cv",
        "segmamba postprocess find results/cv --data BraTS2021 -o c.json",
        "segmamba export results/cv/fold_0 --to mine --set postprocess=@c.json",
        "",
        "segmamba postprocess find results/xray --data Dataset802_Xray",
        "segmamba postprocess find --also raw labelsTr --data Dataset001_X -o c.json",
    )
)
def find(
    data: Annotated[
        Path, typer.Option(help="The data set that the run was trained on: it has the truth.")
    ],
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            show_default=False,
            help="A run, or a cross-validation (folder of fold_0, fold_1, …).",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            show_default=False,
            help="The corrections; NAME_report.json and .html go beside it. Default: "
            "corrections.json in the run, where segmamba predict finds it.",
        ),
    ] = None,
    objective: Annotated[
        Objective,
        typer.Option(help="What shall rise: Dice, or the mean over lesions of Dice (BraTS 2023)."),
    ] = "dice",
    also: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            show_default=False,
            metavar="PREDICTIONS TRUTHS",
            help="Two more folders of label maps; you vouch that no model saw those cases.",
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0.0, help="Rise of the mean that a step must bring.")
    ] = 0.0005,
) -> None:
    """Find thresholds for components, keep-largest, ET relabelling and hole filling.

    Only predictions of cases that did not train their model count: the validation cases of a run,
    or of every fold of a cross-validation. A step is kept if the mean over cases rises and no
    region falls; the gain is then estimated again on cases left out of the search, and steps that
    do not hold there are dropped. The cases used here must not be the ones you report scores on.
    """
    import training.judge.corrections_report  # noqa: F401 - what it lacks must not cost a search
    from training.data.find import load_dataset
    from training.judge.find_corrections import find_corrections

    output = output or (run or Path()) / "corrections.json"
    _require_place(output)
    dataset = load_dataset(data)
    cases, notes = _cases(run, also, dataset)
    for note in notes:
        say_warning(note)
    board = _board(cases, dataset, objective)
    with _bar("trying corrections") as tell:
        finding = find_corrections(board, margin=margin, progress=tell)
    files = _write(output, finding, board, dataset, notes)
    _show(finding, board)
    for path in files:
        out().print(str(path), soft_wrap=True, markup=False)


@postprocess.command(
    epilog=epilog(
        "segmamba postprocess apply c.json predictions/raw predictions/corrected",
        "segmamba postprocess apply c.json case.nii.gz corrected.nii.gz",
    )
)
def apply(
    corrections: Annotated[Path, typer.Argument(help="What segmamba postprocess find wrote.")],
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A label map (.nii.gz, .nii, .png), or a folder.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where the corrected file or files go.")
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that exist.")
    ] = False,
) -> None:
    """Apply corrections to label maps; the files keep their numbering and geometry."""
    from training.judge.correct_files import correct_file, plan_files
    from training.judge.corrections import load_corrections

    wanted = load_corrections(corrections)
    if not wanted.steps:
        say_warning("these corrections have no steps: the files are copied as they are")
    pairs = plan_files(source, target, overwrite=overwrite)
    written = changed = 0
    with _bar("correcting") as tell:
        for done, (before, after) in enumerate(pairs, start=1):
            try:
                changed += correct_file(before, after, wanted) > 0
                written += 1
            except InputError as error:
                say_error(f"{before.name}: {error}")
            tell("correcting", done, len(pairs))
    out().print(f"{written} of {len(pairs)} label maps written, {changed} of them changed")
    if written < len(pairs):
        raise typer.Exit(1)


# ---------------------------------------------------------------- find


def _cases(
    run: Path | None, also: tuple[Path, Path] | None, dataset: Dataset
) -> tuple[tuple[Predicted, ...], tuple[str, ...]]:
    """The predictions to search on, and what a reader should know of them."""
    from training.judge.out_of_fold import Gathered, gather, pair_folders, refuse_trained

    if run is None and also is None:
        raise OptionError(
            "run",
            expected="a run or a cross-validation, or --also PREDICTIONS TRUTHS",
            got="neither",
            way_out="For example: segmamba postprocess find results/cv --data BraTS2021.",
        )
    found = Gathered(cases=()) if run is None else gather(run, dataset)
    if also is None:
        return found.cases, found.notes
    more = pair_folders(*also)
    if run is not None:
        refuse_trained(more, run)
    twice = {case.name for case in found.cases} & {case.name for case in more}
    if twice:
        raise OptionError(
            "also",
            expected="cases that the run does not have",
            got=f"{len(twice)} that it has",
            way_out="Leave them out: each case counts once.",
        )
    note = f"{len(more)} predictions came from other folders; that no model saw those cases was "
    return (*found.cases, *more), (*found.notes, f"{note}not checked.")


def _board(cases: tuple[Predicted, ...], dataset: Dataset, objective: Objective) -> Scoreboard:
    from training.judge.out_of_fold import read_pair
    from training.judge.scoreboard import Scoreboard
    from training.naming import shown_names

    board = Scoreboard(dataset.task, objective)
    shown = shown_names([case.name for case in cases])
    with _bar("reading label maps") as tell:
        for number, (name, case) in enumerate(zip(shown, cases, strict=True), start=1):
            board.add(name, *read_pair(case, dataset))
            tell("reading label maps", number, len(cases))
    return board


def _write(
    output: Path, finding: Finding, board: Scoreboard, dataset: Dataset, notes: tuple[str, ...]
) -> list[Path]:
    import json

    from model_core.imaging.atomic import write_atomically
    from training.judge.corrections import Corrections
    from training.judge.corrections_report import evidence_of, page_of, report_of

    task = dataset.task
    corrections = Corrections(
        steps=finding.kept,
        labels=task.labels,
        regions=task.regions,
        dims=task.dims,
        values=dataset.values,
        evidence=evidence_of(finding, board, notes),
    )
    report = json.dumps(report_of(finding, board, notes), indent=2, allow_nan=False)
    page = page_of(finding, board, notes)
    json_path, html_path = (
        output.with_name(f"{output.stem}_report.{ending}") for ending in ("json", "html")
    )
    write_atomically(json_path, f"{report}\n".encode())
    write_atomically(html_path, page.encode())
    corrections.write(output)
    return [output, json_path, html_path]


def _show(finding: Finding, board: Scoreboard) -> None:
    from rich.table import Table

    from training.judge.corrections_report import TITLES, WARNING, say

    console = out()
    table = Table(box=None, padding=(0, 2))
    table.add_column(f"mean {TITLES[board.objective]}")
    for name in (*board.regions, "mean"):
        table.add_column(name, justify="right")
    rows: dict[str, Any] = {"without corrections": finding.before}
    if finding.found:
        rows["on the cases that chose them"] = finding.after
    if finding.honest is not None:
        rows["on cases left out (honest)"] = finding.honest
    for title, scores in rows.items():
        if len(scores):
            means = (*scores.mean(axis=0), scores.mean())
            table.add_row(title, *(f"{mean:.4f}" for mean in means))
    console.print(table)
    for number, step in enumerate(finding.kept, start=1):
        console.print(f"{number}. {say(step)}", soft_wrap=True)
    console.print(finding.verdict, soft_wrap=True)
    if finding.kept:
        console.print(WARNING, soft_wrap=True, style="yellow")


def _require_place(output: Path) -> None:
    if not output.parent.is_dir():
        raise OptionError(
            "output",
            expected="a file in an existing folder",
            got="a folder that does not exist",
            way_out="Create the folder first.",
        )


def _bar(what: str) -> AbstractContextManager[Counted]:
    from training.bars import counting

    return counting(err(), what)
