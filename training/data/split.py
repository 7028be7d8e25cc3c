"""Which cases train and which judge: set aside by the layout, by name, or by fold; then kept.

Folds are drawn from all labelled cases. Where nnU-Net has split the same data set already
(``splits_final.json`` in the folder that ``nnUNet_preprocessed`` names), its folds are taken, so
that results can be compared case by case.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_core.errors import OptionError, StudyError
from training.data.dataset import CaseFiles, Dataset
from training.data.find import PREPROCESSED_VARIABLE


@dataclass(frozen=True, kw_only=True)
class Split:
    """Cases that train and cases that judge; none does both."""

    training: tuple[CaseFiles, ...]
    validation: tuple[CaseFiles, ...]

    def to_json(self) -> dict[str, list[str]]:
        """Names only: where the files lie is not part of a run's value."""
        return {
            "training": [case.name for case in self.training],
            "validation": [case.name for case in self.validation],
        }


def find_split(
    dataset: Dataset,
    validation: Sequence[str] = (),
    fold: int | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Split:
    """The split of a data set's labelled cases.

    Args:
        dataset: where they come from.
        validation: names or unique endings of names of the validation cases.
        fold: which of `folds` judges, from 0 on; None: the layout's own validation cases, else
            every fifth case.
        folds: how many.
        seed: decides the folds.

    Raises:
        OptionError: no case is left to train on, or a name or fold that does not exist.
    """
    cases = dataset.labelled
    if validation and fold is not None:
        raise OptionError(
            "fold",
            expected="a fold, or names of validation cases",
            got="both",
            way_out="Leave out --fold or --val.",
        )
    if fold is not None:
        return _fold(dataset, fold, folds, seed)
    if dataset.validation and not validation:
        return _checked(Split(training=dataset.training, validation=dataset.validation))
    chosen = [_by_ending(cases, name) for name in validation] or list(cases[::5])
    return _set_aside(cases, {case.name for case in chosen})


def restore_split(dataset: Dataset, names: Mapping[str, Sequence[str]]) -> Split:
    """The split whose `Split.to_json` was kept; a case that is gone raises `OptionError`."""
    found = {case.name: case for case in dataset.labelled}
    missing = [name for group in names.values() for name in group if name not in found]
    if missing:
        raise OptionError(
            "data",
            expected="the data set that the run was started on",
            got=f"one without {len(missing)} of its cases",
            way_out="Give the same data folder as before.",
        )
    return Split(
        training=tuple(found[name] for name in names["training"]),
        validation=tuple(found[name] for name in names["validation"]),
    )


def _fold(dataset: Dataset, fold: int, folds: int, seed: int) -> Split:
    kept = _nnunet_folds(dataset)
    parts = kept if len(kept) == folds else _drawn(dataset.labelled, folds, seed)
    if not 0 <= fold < len(parts):
        raise OptionError(
            "fold",
            expected=f"0 to {len(parts) - 1}",
            got=f"{fold}",
            way_out="Folds are counted from 0.",
        )
    return _set_aside(dataset.labelled, set(parts[fold]))


def _drawn(cases: Sequence[CaseFiles], folds: int, seed: int) -> list[list[str]]:
    """Names of each fold's validation cases: every case in one, sizes that differ by one at most.

    The cases are drawn in the order of their names, so their place on the disk has no say.
    """
    if not 2 <= folds <= len(cases):
        raise OptionError(
            "folds",
            expected=f"2 to {len(cases)}, the number of labelled cases",
            got=f"{folds}",
            way_out="Choose fewer folds or add cases.",
        )
    order = np.random.default_rng(seed).permutation(len(cases))
    return [[cases[i].name for i in sorted(order[fold::folds])] for fold in range(folds)]


def _nnunet_folds(dataset: Dataset) -> list[list[str]]:
    """Validation names of each of nnU-Net's folds; empty if it has made none."""
    place = os.environ.get(PREPROCESSED_VARIABLE)
    path = Path(place or "") / dataset.name / "splits_final.json"
    if dataset.layout != "nnunet" or not place or not path.is_file():
        return []
    known = {case.name for case in dataset.labelled}
    try:
        folds = [list(fold["val"]) for fold in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        folds = [[""]]
    if all(name in known for fold in folds for name in fold):
        return folds
    raise StudyError(
        "splits_final.json",
        expected="nnU-Net's folds of this data set's cases",
        got="other cases or another form",
        way_out=f"Plan the data set again with nnU-Net, or unset {PREPROCESSED_VARIABLE}.",
    )


def _set_aside(cases: Sequence[CaseFiles], names: set[str]) -> Split:
    return _checked(
        Split(
            training=tuple(case for case in cases if case.name not in names),
            validation=tuple(case for case in cases if case.name in names),
        )
    )


def _checked(split: Split) -> Split:
    if split.training:
        return split
    raise OptionError(
        "data",
        expected="at least one labelled case left to train on",
        got=f"{len(split.validation)} found, all for validation"
        if split.validation
        else "none with a label map",
        way_out="Name fewer validation cases or add cases.",
    )


def _by_ending(cases: Sequence[CaseFiles], ending: str) -> CaseFiles:
    found = [case for case in cases if case.name.endswith(ending)]
    if len(found) != 1:
        raise OptionError(
            "val",
            expected="the name of one case or its unique ending",
            got=f"{ending!r}, which fits {len(found)} of {len(cases)} cases",
            way_out="Give the case's full name.",
        )
    return found[0]
