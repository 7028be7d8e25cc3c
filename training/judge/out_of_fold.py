"""Out-of-fold predictions on disk: which there are, whose truth they have, and who made them.

A run keeps the predictions of its validation cases in ``predictions/raw/`` and says in
``split.json`` which cases trained it; a fold set is a folder of such runs, ``fold_0``,
``fold_1``, … A prediction of a case that trained the run is refused: what is tuned on it is tuned
on memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_core.cli.pairs import NIFTI_OR_PNG, find_pairs, label_files
from model_core.errors import ImageError, OptionError, StudyError
from model_core.types import Spacing
from training.data.dataset import CaseFiles, Dataset
from training.data.images import read_label_file, to_internal
from training.task import LabelArray


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """One case with its prediction and its truth, both files in the data set's numbering."""

    name: str
    prediction: Path
    truth: Path


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The predictions of a run or a fold set.

    Attributes:
        cases: sorted by name, each once.
        notes: what a reader of the report should know, in sentences.
    """

    cases: tuple[Predicted, ...]
    notes: tuple[str, ...] = ()


def gather(run: Path, dataset: Dataset) -> Gathered:
    """The out-of-fold predictions of a run or a fold set, and their truths.

    Raises:
        OptionError: no run there, no predictions, a prediction of a case that trained the run, or
            a case that two folds predicted.
        StudyError: a case that the data set does not have, or has no truth for.
    """
    runs = _runs(run)
    known = {case.name: case for case in dataset.labelled}
    found: dict[str, Predicted] = {}
    notes: list[str] = []
    for folder in runs:
        split, files = _split(folder), _predictions(folder)
        if not files:
            notes.append(f"{folder.name} has no predictions yet.")
        _refuse_leaks(files, split, folder)
        outside = sorted(files.keys() - set(split["validation"]))
        if outside:
            notes.append(
                f"{folder.name}: {len(outside)} predictions of cases outside its validation "
                "were left alone."
            )
        if _began_elsewhere(folder):
            notes.append(
                f"{folder.name} began from other weights: make sure that those never saw these "
                "cases."
            )
        for name in sorted(files.keys() & set(split["validation"])):
            if name in found:
                raise _twice(folder)
            found[name] = Predicted(name=name, prediction=files[name], truth=_truth(name, known))
    if not found:
        raise OptionError(
            "run",
            expected="predictions of validation cases in predictions/raw",
            got="none",
            way_out="Train with --fold all, or predict the validation cases of the run first.",
        )
    return Gathered(cases=tuple(found[name] for name in sorted(found)), notes=tuple(notes))


def pair_folders(predictions: Path, truths: Path) -> tuple[Predicted, ...]:
    """Predictions and truths of two folders, matched by case name; for these the caller vouches.

    Raises:
        InputError: a folder that is missing, a case that is there twice, or no case in both.
    """
    pairs, _ = find_pairs(predictions, truths, NIFTI_OR_PNG)
    return tuple(
        Predicted(name=pair.name, prediction=pair.prediction, truth=pair.truth) for pair in pairs
    )


def read_pair(case: Predicted, dataset: Dataset) -> tuple[LabelArray, LabelArray, Spacing]:
    """Prediction and truth as internal labels on one grid, and its spacing in mm.

    Raises:
        ImageError: an unreadable file, another grid, or a value that the data set does not have;
            names the case, for the user's own screen.
    """
    try:
        truth = read_label_file(case.truth)
        prediction = read_label_file(case.prediction, on=truth.grid)
        return (
            to_internal(prediction.array, dataset),
            to_internal(truth.array, dataset),
            truth.spacing_mm,
        )
    except ImageError as error:
        raise ImageError(
            f"{case.name}, {error.argument}",
            expected=error.expected,
            got=error.got,
            way_out=error.way_out,
        ) from error


# ---------------------------------------------------------------- runs


def _runs(folder: Path) -> list[Path]:
    """The run itself, or those of a fold set in order."""
    if (folder / "split.json").is_file():
        return [folder]
    folds = [path for path in folder.glob("fold_*") if (path / "split.json").is_file()]
    if not folds:
        raise OptionError(
            "run",
            expected="a run (with split.json), or a folder of fold_0, fold_1, …",
            got="neither",
            way_out="Give the folder that segmamba train wrote.",
        )
    return sorted(folds, key=lambda path: (len(path.name), path.name))


def _split(folder: Path) -> Mapping[str, Sequence[str]]:
    split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    if not isinstance(split, dict) or not {"training", "validation"} <= split.keys():
        raise OptionError(
            "run",
            expected="split.json with the lists training and validation",
            got="another content",
            way_out="Give the folder that segmamba train wrote.",
        )
    return split


def _predictions(folder: Path) -> dict[str, Path]:
    """Raw predictions by case name; none of a run that has not ended."""
    raw = folder / "predictions" / "raw"
    if not raw.is_dir() or not any(raw.iterdir()):
        return {}
    return label_files(raw, "run", NIFTI_OR_PNG)


def _refuse_leaks(files: Iterable[str], split: Mapping[str, Sequence[str]], folder: Path) -> None:
    """A case that trained the run must not choose its corrections."""
    seen = sorted(set(files) & set(split["training"]))
    if seen:
        raise OptionError(
            "run",
            expected="predictions of cases that the run was not trained on",
            got=f"{len(seen)} of its training cases in {folder.name}/predictions/raw "
            f"({', '.join(seen[:3])}{', …' if len(seen) > 3 else ''})",
            way_out="Corrections tuned on training cases flatter themselves: take those "
            "predictions out of the folder.",
        )


def refuse_trained(cases: Sequence[Predicted], run: Path) -> None:
    """Refuse cases that trained any run of a run or fold set.

    Raises:
        OptionError: there is one; predictions from outside cannot be told to be out of fold.
    """
    trained = {name for folder in _runs(run) for name in _split(folder)["training"]}
    seen = [case.name for case in cases if case.name in trained]
    if seen:
        raise OptionError(
            "also",
            expected="cases that no fold of the run was trained on",
            got=f"{len(seen)} that were ({', '.join(seen[:3])}{', …' if len(seen) > 3 else ''})",
            way_out="Leave them out: nothing shows that another model predicted them.",
        )


def _began_elsewhere(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and bool(json.loads(config.read_text("utf-8")).get("initial"))


def _truth(name: str, known: Mapping[str, CaseFiles]) -> Path:
    case = known.get(name)
    if case is None or case.label is None:
        raise StudyError(
            "data",
            expected="the data set that the run was trained on, with the truth of every case",
            got=f"none for {name}",
            way_out="Give the same --data as the run's.",
        )
    return case.label


def _twice(folder: Path) -> OptionError:
    return OptionError(
        "run",
        expected="every case predicted by one fold",
        got=f"a case of {folder.name} that an earlier fold predicted too",
        way_out="Give one cross-validation, not runs with overlapping validation cases.",
    )
