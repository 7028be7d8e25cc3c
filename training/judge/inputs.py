"""Which cases shall be predicted: of a data set, of a folder of images, or one file.

What a file's values mean is told by the data set, if there is one (its own folder, or the folder
above ``imagesTs``), else by the model: results are then numbered as its training data was.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from model_core.cli.pairs import NIFTI_OR_PNG, label_files
from model_core.errors import OptionError, StudyError
from training.data.brats import find_brats
from training.data.dataset import CaseFiles, Dataset
from training.data.described import DESCRIPTION, PICTURES, numbered_cases
from training.data.find import load_dataset, resolve_dataset
from training.judge.models import Model
from training.task import LabelArray, Task

GROUPS: Final = ("auto", "test", "labelled", "all")
_IMAGE: Final = re.compile(r"\.(nii(\.gz)?|png|bmp|tiff?)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Cases, and the data set whose numbering their label maps have (labels as the model's)."""

    dataset: Dataset
    cases: tuple[CaseFiles, ...]


def find_inputs(
    source: Path | str, model: Model, *, which: str = "auto", truth: Path | None = None
) -> Inputs:
    """The cases that a path stands for.

    Args:
        source: a data set's folder (or its number or name under ``nnUNet_raw``), a folder of
            images, or one image file.
        model: what will predict them; tells channels and labels.
        which: of a data set, ``test``, ``labelled`` or ``all`` cases, ``auto`` (test cases if
            there are any, else all), or case names with commas between them.
        truth: file or folder of label maps, matched by case name; goes before the data set's own.

    Raises:
        StudyError: no case there, or other labels or channels than the model's.
        OptionError: `which` names no case.
    """
    path = resolve_dataset(source)
    dataset = _dataset(path, model)
    cases = _with_truth(_select(dataset, which), truth)
    if not cases:
        raise StudyError(
            "input",
            expected=f"cases to predict ({which})",
            got="none",
            way_out="Choose others with --cases: test, labelled, all, or names.",
        )
    return Inputs(dataset=dataset, cases=cases)


def with_labels_of(dataset: Dataset, task: Task) -> Dataset:
    """The same data set with its labels numbered as in `task`; by name, in any order.

    Raises:
        StudyError: other labels than the task's.
    """
    place = renumbering(dataset.task, task)
    values = dataset.values
    if place is not None:
        values = {value: int(place[label]) for value, label in dataset.values.items()}
    same = replace(dataset.task, labels=task.labels, regions=task.regions)
    return replace(dataset, task=same, values=values)


def renumbering(mine: Task, theirs: Task) -> LabelArray | None:
    """For each of my internal labels, theirs of the same name; None where all are equal.

    Raises:
        StudyError: other labels.
    """
    if mine.labels == theirs.labels:
        return None
    if sorted(mine.labels) != sorted(theirs.labels):
        raise StudyError(
            "input",
            expected=f"a data set and a model of the same labels, here {', '.join(mine.labels)}",
            got=", ".join(theirs.labels),
            way_out="Use a model of this data set, or a folder of images without dataset.json.",
        )
    places = [0, *(theirs.labels.index(name) + 1 for name in mine.labels)]
    return np.array(places, np.uint8)


def _dataset(path: Path, model: Model) -> Dataset:
    if (path / DESCRIPTION).is_file():
        return with_labels_of(load_dataset(path), model.task)
    described = _described_above(path, model.task)
    channels = described.task.channels if described else model.task.channels
    cases = _cases_of(path, channels, brats=model.task.is_brats)
    if not cases:
        return with_labels_of(load_dataset(path), model.task)
    if described:
        return replace(described, training=(), validation=(), test=cases)
    return Dataset(
        name=path.name,
        layout="images",
        task=replace(model.task, channels=channels),
        values=model.values,
        training=(),
        test=cases,
    )


def _described_above(path: Path, task: Task) -> Dataset | None:
    """The data set that a folder such as ``imagesTs``, or a file in it, belongs to."""
    folder = path if path.is_dir() else path.parent
    if not (folder.parent / DESCRIPTION).is_file():
        return None
    return with_labels_of(load_dataset(folder.parent, strict=False), task)


def _cases_of(path: Path, channels: tuple[str, ...], *, brats: bool) -> tuple[CaseFiles, ...]:
    """One file, a folder of ``CASE_0000`` files, or of one file a case; none of BraTS cases."""
    if path.is_file():
        return (_single(path, channels),)
    for ending in (".nii.gz", ".nii", *PICTURES):
        numbered = numbered_cases(path, ending, channels)
        if numbered:
            return tuple(numbered)
    if not path.is_dir() or (brats and find_brats(path, "brats2021")):
        return ()
    files = (entry for entry in sorted(path.iterdir()) if entry.is_file())
    images = (file for file in files if _IMAGE.search(file.name) and file.name[0] != ".")
    return tuple(_single(file, channels) for file in images)


def _single(path: Path, channels: tuple[str, ...]) -> CaseFiles:
    """One file with every channel; of numbered files the others are beside it."""
    stem, ending = _IMAGE.sub("", path.name), path.name[len(_IMAGE.sub("", path.name)) :]
    if stem.endswith("_0000"):
        siblings = {case.name: case for case in numbered_cases(path.parent, ending, channels)}
        return siblings[stem.removesuffix("_0000")]
    return CaseFiles(name=stem, images=(path,), channels=channels)


def _select(dataset: Dataset, which: str) -> tuple[CaseFiles, ...]:
    every = {case.name: case for case in (*dataset.labelled, *dataset.test)}
    groups = {
        "auto": dataset.test or dataset.labelled,
        "test": dataset.test,
        "labelled": tuple(case for case in every.values() if case.label is not None),
        "all": tuple(every.values()),
    }
    if which in groups:
        return groups[which]
    names = [name.strip() for name in which.split(",") if name.strip()]
    unknown = [name for name in names if name not in every]
    if unknown or not names:
        raise OptionError(
            "cases",
            expected=f"{', '.join(GROUPS)}, or names of cases in the input",
            got=f"{len(unknown)} unknown of {len(names)} names",
            way_out="Name the cases as their files are named.",
        )
    return tuple(every[name] for name in dict.fromkeys(names))


def _with_truth(cases: Sequence[CaseFiles], truth: Path | None) -> tuple[CaseFiles, ...]:
    if truth is None:
        return tuple(cases)
    found = label_files(truth, "truth", NIFTI_OR_PNG)
    if truth.is_file() and len(cases) == 1:
        return (replace(cases[0], label=truth),)
    return tuple(replace(case, label=found.get(case.name, case.label)) for case in cases)
