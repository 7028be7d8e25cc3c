"""From a path, a number or a name to a `Dataset`, whatever the layout.

Layouts are told apart by their files, and label conventions by what is declared (``dataset.json``,
the naming of BraTS files, or the option), never by the values in a label map.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from model_core.errors import StudyError
from training.data.brats import Convention, find_brats
from training.data.dataset import CaseFiles, Dataset
from training.data.described import PICTURES, find_described, numbered_cases
from training.task import Task

Labels = Literal["auto-declared", "brats2021", "brats2023"]
RAW_VARIABLE = "nnUNet_raw"
PREPROCESSED_VARIABLE = "nnUNet_preprocessed"


def load_dataset(
    path: Path | str, *, labels: Labels = "auto-declared", strict: bool = True
) -> Dataset:
    """Find a data set's cases; no image is read.

    Args:
        path: a folder, or the number or name of a data set in the folder that the environment
            variable ``nnUNet_raw`` names (``801``, ``Dataset801_LiverCT``).
        labels: the numbering of BraTS label maps; other layouts declare their own.
        strict: refuse what `training.data.verify` would call an error of the layout.

    Raises:
        StudyError: no data set there, or its description cannot be used.
        OptionError: a BraTS folder whose names follow no convention.
    """
    folder = resolve_dataset(path)
    convention: Convention | None = None if labels == "auto-declared" else labels
    found = find_described(folder) or find_brats(folder, convention)
    if found is None:
        raise StudyError(
            "data",
            expected="a folder of BraTS cases (CASE/CASE_t1.nii.gz …), or one with dataset.json "
            "(nnU-Net, Medical Segmentation Decathlon)",
            got="neither" if folder.is_dir() else "no folder",
            way_out="docs/how-to/data.md shows the layouts.",
        )
    errors = [problem for problem in found.problems if problem.error]
    if strict and errors:
        raise StudyError(
            "data",
            expected="every case once, with one file per channel",
            got=f"{len(errors)} cases that are not so ({errors[0].text})",
            way_out="See all of them with: segmamba data verify.",
        )
    return found


def resolve_dataset(path: Path | str) -> Path:
    """The folder that a path, or a data set's number or name under ``nnUNet_raw``, stands for.

    Raises:
        StudyError: a number that no data set has, or that several have.
    """
    folder, raw = Path(path), os.environ.get(RAW_VARIABLE)
    if folder.exists() or not raw or len(folder.parts) != 1:
        return folder
    name = folder.name
    if not re.fullmatch(r"\d{1,3}", name):
        return Path(raw) / name
    found = sorted(Path(raw).glob(f"Dataset{int(name):03d}_*"))
    if len(found) != 1:
        raise StudyError(
            "data",
            expected=f"one folder Dataset{int(name):03d}_NAME in {RAW_VARIABLE}",
            got=f"{len(found)}",
            way_out="Give the data set's name or path.",
        )
    return found[0]


def unlabelled_cases(folder: Path, task: Task) -> tuple[CaseFiles, ...]:
    """Cases to predict in a folder of images without a description, sorted by name.

    ``CASE_0000.nii.gz``, ``CASE_0001.nii.gz`` … (or ``.png`` …) in the order of the task's
    channels; BraTS names (``CASE_t1.nii.gz`` …) for a BraTS task.

    Raises:
        StudyError: none.
    """
    for ending in (".nii.gz", ".nii", *PICTURES):
        cases = numbered_cases(folder, ending, task.channels)
        if cases:
            return tuple(cases)
    brats = find_brats(folder, "brats2021") if task.is_brats else None
    if brats:
        return _sorted([*brats.training, *brats.validation, *brats.test])
    raise StudyError(
        "images",
        expected="files named CASE_0000, CASE_0001, … (.nii.gz, .nii, .png), one per channel",
        got="none",
        way_out=f"The channels are, in order: {', '.join(task.channels)}.",
    )


def _sorted(cases: Sequence[CaseFiles]) -> tuple[CaseFiles, ...]:
    return tuple(sorted(cases, key=lambda case: case.name))
