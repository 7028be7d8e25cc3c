"""``segmamba inspect``: what a folder or archive holds, before anything is segmented."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from model_core.cli import examples, out, say_warning
from model_core.cli.options import Image
from model_core.errors import OptionError, StudyError
from model_core.types import CONTRASTS, Contrast

if TYPE_CHECKING:
    from model_core.recognition.report import Inspection, SeriesReport

_NIFTI: Final = (".nii", ".nii.gz")
_TITLES: Final[Mapping[Contrast, str]] = {"t1": "T1", "t1ce": "T1ce", "t2": "T2", "flair": "FLAIR"}
_UID_TAIL: Final = 10


@examples(
    "segmamba inspect DICOM/                    (a folder of DICOM files, or one .zip)",
    "segmamba inspect BraTS2021_00006/          (a folder of NIfTI files)",
    "segmamba inspect --t1 a.nii.gz --t1ce b.nii.gz --t2 c.nii.gz --flair d.nii.gz",
    "segmamba inspect DICOM/ --json | jq .study",
)
def inspect(
    source: Annotated[
        Path | None,
        typer.Argument(
            exists=True,
            show_default=False,
            help="A folder or .zip of one DICOM study, or a folder of one study's NIfTI files.",
        ),
    ] = None,
    t1: Image = None,
    t1ce: Image = None,
    t2: Image = None,
    flair: Image = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Tell which series is which contrast, and whether the study may be segmented as it is.

    Lists every series with the evidence, takes one for each contrast, looks at the images (skull,
    grids, exchanged or equal images), and says what a preparation would do. Writes nothing.
    Exit code 0: all four contrasts are there; 1: one is missing.
    """
    given: dict[Contrast, Path | None] = {"t1": t1, "t1ce": t1ce, "t2": t2, "flair": flair}
    named = {contrast: path for contrast in CONTRASTS if (path := given[contrast])}
    inspection, titles = _inspect(source, named)
    if as_json:
        typer.echo(json.dumps(inspection.to_dict(), indent=2))
    else:
        _show(inspection, titles)
    raise typer.Exit(1 if inspection.study.missing else 0)


def _inspect(
    source: Path | None, named: Mapping[Contrast, Path]
) -> tuple[Inspection, Mapping[str, str]]:
    """The report, and how the series are called on the user's screen, by uid."""
    from model_core.recognition.inspection import inspect_dicom, inspect_nifti

    if (source is None) == (not named):
        raise OptionError(
            "source",
            expected="either a folder or .zip, or images by --t1 --t1ce --t2 --flair",
            got="both" if named else "neither",
            way_out="See: segmamba inspect --help",
        )
    if source is None:
        return inspect_nifti(named), _by_position([path.name for path in named.values()])
    images = _nifti_files(source)
    if not images:
        from model_core.dicom.gather import gathered

        with gathered(source) as files:
            inspection = inspect_dicom(files)
        return inspection, {series.uid: _tail(series.uid) for series in inspection.series}
    known = _known_names(source)
    if known:
        inspection = inspect_nifti(known, named_by_file=True)
        return inspection, _by_position([path.name for path in known.values()])
    words = {number: path.name.lower().split(".nii")[0] for number, path in enumerate(images)}
    inspection = inspect_nifti(dict(enumerate(images)), names=words)
    return inspection, _by_position([path.name for path in images])


def _nifti_files(source: Path) -> list[Path]:
    """The NIfTI files right inside a folder, or inside the folders in it; none of a file."""
    if not source.is_dir():
        return []
    places = [source, *sorted(entry for entry in source.iterdir() if entry.is_dir())]
    return sorted(
        path
        for place in places
        for path in place.iterdir()
        if path.name.lower().endswith(_NIFTI) and not path.name.startswith(".")
    )


def _known_names(folder: Path) -> Mapping[Contrast, Path] | None:
    """The four files of a study whose names follow BraTS or nnU-Net; None where they do not."""
    from model_core.imaging.study import find_studies

    try:
        studies = find_studies(folder)
    except StudyError:
        return None
    if len(studies) > 1:
        raise OptionError(
            "source",
            expected="one study",
            got=f"{len(studies)}",
            way_out="Inspect the folders one by one.",
        )
    return studies[0].paths


def _by_position(names: list[str]) -> dict[str, str]:
    return {str(position): name for position, name in enumerate(names, start=1)}


def _tail(uid: str) -> str:
    return uid if len(uid) <= _UID_TAIL else f"…{uid[-_UID_TAIL:]}"


def _show(inspection: Inspection, titles: Mapping[str, str]) -> None:
    console, study = out(), inspection.study
    console.print(_table(inspection, titles))
    for text in (*study.suspicions, *study.warnings):
        say_warning(text)
    grids = {True: "one grid", False: "different grids", None: "grids not compared"}
    console.print(f"Skull {study.skull}, {grids[study.grids_equal]}.", soft_wrap=True)
    console.print(f"Preparation: {'; '.join(study.preparation)}.", soft_wrap=True)
    console.print(_conclusion(inspection), style="bold", soft_wrap=True)


def _conclusion(inspection: Inspection) -> str:
    study = inspection.study
    if study.missing:
        return f"Missing: {', '.join(_TITLES[contrast] for contrast in study.missing)}."
    if study.uncertain:
        names = ", ".join(_TITLES[contrast] for contrast in study.uncertain)
        return f"Please confirm: {names}."
    if study.suspicions:
        return "Please check the images: they contradict their names."
    return "May be segmented as it is." if study.ready else "Has to be prepared first."


def _table(inspection: Inspection, titles: Mapping[str, str]) -> Table:
    table = Table(box=None, padding=(0, 1))
    table.add_column("series" if inspection.kind == "dicom" else "file", overflow="fold")
    table.add_column("is")
    table.add_column("sure", justify="right")
    table.add_column("voxels")
    table.add_column("mm")
    table.add_column("axes")
    table.add_column("because", overflow="fold")
    for series in inspection.series:
        style = "bold" if series.chosen else "dim"
        table.add_row(titles[series.uid], *_cells(series), style=style)
    return table


def _cells(series: SeriesReport) -> tuple[str, ...]:
    name = _TITLES[series.contrast] if series.contrast else "other"
    return (
        f"{name}?" if series.uncertain else name,
        f"{series.confidence:.2f}",
        "×".join(str(size) for size in series.shape) if series.shape else f"{series.images} images",
        "×".join(f"{mm:.3g}" for mm in series.spacing_mm) if series.spacing_mm else "",
        series.orientation or "",
        "; ".join((*series.problems, series.reason)),
    )
