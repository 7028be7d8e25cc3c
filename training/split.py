"""Which cases train and which judge: read from the data folder or chosen by name, then kept.

Layouts: ``DATA/{train,val}/CASE/CASE_t1.nii.gz …`` fixes the split itself; in ``DATA/CASE/…`` the
validation cases are named (a unique ending is enough, ``01481``) or every fifth case is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_core.errors import OptionError
from model_core.imaging.study import StudyFiles, find_studies


@dataclass(frozen=True, kw_only=True)
class Split:
    """Studies that train and studies that judge; none does both."""

    training: tuple[StudyFiles, ...]
    validation: tuple[StudyFiles, ...]

    def to_json(self) -> dict[str, list[str]]:
        """Names only: where the files lie is not part of a run's value."""
        return {
            "training": [study.name for study in self.training],
            "validation": [study.name for study in self.validation],
        }


def find_split(data: Path, validation: Sequence[str] = ()) -> Split:
    """The split of a data folder.

    Args:
        data: folder of studies, or of ``train`` and ``val`` folders of studies.
        validation: names or unique endings of names of the validation cases.
    """
    if (data / "train").is_dir() and (data / "val").is_dir() and not validation:
        return Split(
            training=_sorted(find_studies(data / "train")),
            validation=_sorted(find_studies(data / "val")),
        )
    studies = _sorted(find_studies(data))
    chosen = [_by_ending(studies, name) for name in validation] or list(studies[::5])
    names = {study.name for study in chosen}
    training = tuple(study for study in studies if study.name not in names)
    if not training:
        raise OptionError(
            "data",
            expected="at least one case left to train on",
            got=f"{len(studies)} found, all for validation",
            way_out="Name fewer validation cases or add cases.",
        )
    return Split(training=training, validation=_sorted(chosen))


def restore_split(data: Path, names: Mapping[str, Sequence[str]]) -> Split:
    """The split whose `Split.to_json` was kept; a case that is gone raises `OptionError`."""
    both = (data / "train").is_dir() and (data / "val").is_dir()
    folders = (data / "train", data / "val") if both else (data,)
    found = {study.name: study for folder in folders for study in find_studies(folder)}
    missing = [name for group in names.values() for name in group if name not in found]
    if missing:
        raise OptionError(
            "data",
            expected="the folder that the run was started on",
            got=f"one without {len(missing)} of its cases",
            way_out="Give the same data folder as before.",
        )
    return Split(
        training=tuple(found[name] for name in names["training"]),
        validation=tuple(found[name] for name in names["validation"]),
    )


def _sorted(studies: Sequence[StudyFiles]) -> tuple[StudyFiles, ...]:
    return tuple(sorted(studies, key=lambda study: study.name))


def _by_ending(studies: Sequence[StudyFiles], ending: str) -> StudyFiles:
    found = [study for study in studies if study.name.endswith(ending)]
    if len(found) != 1:
        raise OptionError(
            "val",
            expected="the name of one case or its unique ending",
            got=f"{ending!r}, which fits {len(found)} of {len(studies)} cases",
            way_out="Give the case's full name.",
        )
    return found[0]
