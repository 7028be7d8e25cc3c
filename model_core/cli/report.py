"""``segmamba report``: a result, or two time points of one patient, as HTML and PDF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_core.cli import examples, out, say_warning
from model_core.cli.interrupt import stop_on_interrupt
from model_core.cli.options import Image, Overwrite
from model_core.cli.outputs import all_or_nothing
from model_core.errors import OptionError
from model_core.types import Contrast

if TYPE_CHECKING:
    from model_core.report.sources import Found, Named

_ONE = "One result by its files"
_TWO = "Two time points of one patient"

Result = Annotated[
    Path | None,
    typer.Argument(
        exists=True,
        show_default=False,
        help="A result: its folder, its .zip archive or its run.json.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, metavar="FILE", rich_help_panel=_ONE, help="The label map."
    ),
]
RunJson = Annotated[
    Path | None,
    typer.Option(
        "--run",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        rich_help_panel=_ONE,
        help="The run.json of the label map: model, versions, checksums, quality flags.",
    ),
]
Place = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        metavar="PATH",
        rich_help_panel=_TWO,
        help="A session's result: folder, .zip archive or run.json.",
    ),
]
OfSession = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        metavar="FILE",
        rich_help_panel=_TWO,
        help="That session's file, where it does not lie in the result.",
    ),
]


@examples(
    "segmamba report results/ -o report.html --pdf report.pdf   (segmentation.nii.gz, run.json, …)",
    "segmamba report results.zip --t1ce t1ce.nii.gz --flair flair.nii.gz",
    "segmamba report --labels seg.nii.gz --t1ce t1ce.nii.gz --flair flair.nii.gz",
    "segmamba report --before 2023/ --after 2024/ -o change.html",
)
def report(  # noqa: PLR0913 - each parameter is an option of the command
    result: Result = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The report (.html).")
    ] = Path("report.html"),
    pdf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it as PDF too (the extra pdf, and Pango)."),
    ] = None,
    labels: Labels = None,
    t1: Image = None,
    t1ce: Image = None,
    t2: Image = None,
    flair: Image = None,
    run: RunJson = None,
    before: Place = None,
    before_labels: OfSession = None,
    before_t1ce: OfSession = None,
    after: Place = None,
    after_labels: OfSession = None,
    after_t1ce: OfSession = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a report for people: lesions in pictures, volumes, quality flags, versions.

    One HTML file that needs no network and no script, and the same as PDF if asked for. T1ce and
    FLAIR are shown where they lie beside the label map or are named; no name from a file or a
    header is in it, but the pictures are of the patient.

    With --before and --after two label maps of one patient are compared: the earlier T1ce is
    registered to the later one, the labels are carried along, and the report shows what is new,
    gone and stable, in pictures and in mL.
    """
    from model_core.report.sources import Named

    _refuse_existing([output, *([pdf] if pdf else [])], overwrite)
    images: dict[Contrast, Path | None] = {"t1": t1, "t1ce": t1ce, "t2": t2, "flair": flair}
    one = Named(labels=labels, images=_given(images), run=run)
    sessions = (
        (before, Named(labels=before_labels, images=_given({"t1ce": before_t1ce}))),
        (after, Named(labels=after_labels, images=_given({"t1ce": after_t1ce}))),
    )
    compared = any(place or named.labels or named.images for place, named in sessions)
    if compared and (result or one != Named()):
        raise OptionError(
            "--before",
            expected="either one result, or --before and --after",
            got="both",
            way_out="Write one report after the other.",
        )
    html = _compared(sessions) if compared else _of_one(result, one)
    _write(html, output, pdf)


def _of_one(place: Path | None, named: Named) -> str:
    from model_core.report.sources import find
    from model_core.report.study import study_report

    found = find(place, named)
    _tell(found)
    return study_report(found.labels, found.images, found.account)


def _compared(sessions: tuple[tuple[Path | None, Named], tuple[Path | None, Named]]) -> str:
    from model_core.report.change import change_report
    from model_core.report.compare import Timepoint, compare
    from model_core.report.sources import find

    names = ("--before", "--after")
    found = [
        find(place, named, argument=name)
        for name, (place, named) in zip(names, sessions, strict=True)
    ]
    for one in found:
        _tell(one)
    points = [Timepoint(labels=one.labels, images=one.images) for one in found]
    with stop_on_interrupt() as cancelled:
        comparison = compare(points[0], points[1], stop=cancelled)
    for text in comparison.warnings:
        say_warning(text)
    accounts = (found[0].account, found[1].account)
    return change_report(points[0], points[1], comparison, accounts)


def _write(html: str, output: Path, pdf: Path | None) -> None:
    with all_or_nothing() as stage:
        stage(output).write_text(html, encoding="utf-8")
        if pdf is not None:
            from model_core.report.pdf import pdf_of

            stage(pdf).write_bytes(pdf_of(html))
    for path in (output, pdf):
        if path is not None:
            out().print(f"{path}", soft_wrap=True, markup=False)


def _given(files: Mapping[Contrast, Path | None]) -> dict[Contrast, Path]:
    return {contrast: path for contrast, path in files.items() if path is not None}


def _tell(found: Found) -> None:
    for text in found.account.notes:
        say_warning(text)


def _refuse_existing(paths: list[Path], overwrite: bool) -> None:
    there = [path.name for path in paths if path.exists()]
    if there and not overwrite:
        raise OptionError(
            "--output",
            expected="files that do not exist yet",
            got=", ".join(there),
            way_out="Name others, or replace them with --overwrite.",
        )
