"""``segmamba visualize``: a sheet of slices per case, and an index of all to find where to look."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_core.cli import err, examples, out, say_error, say_warning
from model_core.errors import InputError, OptionError, SegMambaError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from training.bars import Counted
    from training.data.dataset import CaseFiles, Dataset
    from training.judge.corrections import Corrections
    from training.task import LabelArray, Task


@dataclass(frozen=True, kw_only=True)
class _Case:
    """The files of one sheet."""

    files: CaseFiles
    prediction: Path
    postprocessed: Path | None
    truth: Path | None


@examples(
    "segmamba visualize --images BraTS2021 --prediction raw -o sheets",
    "segmamba visualize --images BraTS2021 --prediction raw --postprocessed pp -o sheets",
    "segmamba visualize --images Dataset802_X --prediction raw --corrections c.json -o sheets",
    "segmamba visualize --images new --data Dataset802_X --prediction raw -o sheets",
)
def visualize(
    images: Annotated[
        Path, typer.Option(help="A data set, one BraTS case, or (with --data) a folder of images.")
    ],
    prediction: Annotated[
        Path, typer.Option(help="Predicted label maps: a folder, or the file of one case.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the sheets: CASE.png and index.png.")
    ],
    postprocessed: Annotated[
        Path | None,
        typer.Option(show_default=False, help="The same after corrections: changes are outlined."),
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(
            show_default=False, help="Instead: apply these corrections (corrections.json) here."
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(show_default=False, help="True label maps (default: those of the data set)."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(show_default=False, help="Data set whose labels and channels these are."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="Draw so many cases at most.")
    ] = None,
) -> None:
    """Draw case sheets: slices through the lesion by contrasts, truth, raw and post-processed.

    Each sheet has the axial, coronal and sagittal slice with most tumour, the axial slice that the
    corrections changed most, the Dice of every region, volumes, a scale bar and the patient's
    sides (right is on the left). Pictures (.png) have one row. No name is drawn into a sheet;
    index.png shows all of them small.
    """
    from training.judge.contact_sheet import write_index
    from training.judge.corrections import load_corrections
    from training.naming import shown_names

    if postprocessed and corrections:
        raise OptionError(
            "corrections",
            expected="either --postprocessed or --corrections",
            got="both",
            way_out="Leave one out.",
        )
    dataset, files = _find(images, data)
    steps = load_corrections(corrections) if corrections else None
    cases = _match(files, prediction, postprocessed, truth)[:limit]
    output.mkdir(parents=True, exist_ok=True)
    drawn: list[tuple[str, Path]] = []
    with _bar() as tell:
        names = shown_names([case.files.name for case in cases])
        for number, (case, name) in enumerate(zip(cases, names, strict=True), start=1):
            path = output / f"{case.files.name}.png"
            try:
                caption = _draw(case, name, path, dataset, steps)
                drawn.append((caption, path))
            except (SegMambaError, OSError) as error:
                say_error(f"{case.files.name}: {error}")
            tell("drawing", number, len(cases))
    if len(drawn) > 1:
        write_index(output / "index.png", drawn)
    out().print(f"{len(drawn)} of {len(cases)} sheets in {output}", soft_wrap=True, markup=False)
    if len(drawn) < len(cases):
        raise typer.Exit(1)


def _find(images: Path, data: Path | None) -> tuple[Dataset, tuple[CaseFiles, ...]]:
    """What the labels mean, and the cases that have images."""
    from training.data.find import load_dataset, unlabelled_cases

    dataset = load_dataset(data or images, strict=False)
    if data is None:
        return dataset, (*dataset.labelled, *dataset.test)
    return dataset, unlabelled_cases(images, dataset.task)


def _match(
    files: tuple[CaseFiles, ...], prediction: Path, postprocessed: Path | None, truth: Path | None
) -> list[_Case]:
    """The cases that have a prediction, in order of their names."""
    known = {case.name: case for case in files}
    alone = next(iter(known)) if len(known) == 1 else None
    predicted = _labels(prediction, "prediction", alone)
    corrected = _labels(postprocessed, "postprocessed", alone)
    true = _labels(truth, "truth", alone)
    names = sorted(known.keys() & predicted.keys())
    if not names:
        raise InputError(
            "prediction",
            expected="label maps whose case names occur among the images",
            got=f"none in common (predictions: {len(predicted)}, images: {len(known)})",
            way_out="Name them after the case: CASE.nii.gz, CASE_seg.nii.gz or CASE.png.",
        )
    if len(names) < len(predicted):
        say_warning(f"{len(predicted) - len(names)} predictions without images are not drawn")
    return [
        _Case(
            files=known[name],
            prediction=predicted[name],
            postprocessed=corrected.get(name),
            truth=true.get(name) if truth else known[name].label,
        )
        for name in names
    ]


def _labels(place: Path | None, argument: str, alone: str | None) -> dict[str, Path]:
    """Label maps by case name; a file belongs to the only case, whatever its name."""
    from model_core.cli.pairs import NIFTI_OR_PNG, label_files

    if place is None:
        return {}
    if place.is_file() and alone:
        return {alone: place}
    return label_files(place, argument, NIFTI_OR_PNG)


def _draw(
    case: _Case, name: str, path: Path, dataset: Dataset, corrections: Corrections | None
) -> str:
    """Write one sheet; its caption in the index."""
    from training.data.images import read_images, read_label_file, to_internal
    from training.judge.corrections import apply_corrections
    from training.judge.sheets import draw_sheet, write_sheet

    volumes = read_images(case.files, dataset.task)
    grid = volumes[0].grid

    def labels(file: Path | None) -> LabelArray | None:
        return None if file is None else to_internal(read_label_file(file, on=grid).array, dataset)

    raw, corrected, truth = labels(case.prediction), labels(case.postprocessed), labels(case.truth)
    assert raw is not None
    if corrections is not None:
        corrected, _ = apply_corrections(raw, grid.spacing_mm, dataset.task, corrections)
    figure = draw_sheet(
        volumes, dataset.task, prediction=raw, postprocessed=corrected, truth=truth, title=name
    )
    write_sheet(path, figure)
    return _caption(name, raw if corrected is None else corrected, truth, dataset.task)


def _caption(name: str, labels: LabelArray, truth: LabelArray | None, task: Task) -> str:
    from training.judge.score import dice_by_region

    if truth is None:
        return name
    scores = dice_by_region(labels, truth, task)
    return f"{name} - mean Dice {sum(scores.values()) / len(scores):.3f}"


def _bar() -> AbstractContextManager[Counted]:
    from training.bars import counting

    return counting(err(), "drawing")
