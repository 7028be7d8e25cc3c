"""Finding studies in a folder by the names of their files.

==============  ====================================================  ==========================
naming          one study                                             truth
==============  ====================================================  ==========================
BraTS to 2022   ``<case>_{t1,t1ce,t2,flair}.nii.gz``                  ``<case>_seg.nii.gz``
BraTS 2023      ``<case>-{t1n,t1c,t2w,t2f}.nii.gz``                   ``<case>-seg.nii.gz``
nnU-Net         ``<case>_{0000,0001,0002,0003}.nii.gz``               not taken (see below)
plain           ``{t1,t1ce,t2,flair}.nii.gz`` in a folder of its own  ``seg.nii.gz``
==============  ====================================================  ==========================

``.nii`` does as well as ``.nii.gz``. nnU-Net channels follow ``channel_names`` in the
``dataset.json`` beside the images or one folder up, else the order T1, T1ce, T2, FLAIR. nnU-Net
label maps are left alone: their numbering is each dataset's own and usually not that of BraTS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from model_core.errors import StudyError
from model_core.types import CONTRASTS, Contrast

CONTRAST_NAMES: Final[Mapping[str, Contrast]] = MappingProxyType(
    {
        "t1": "t1",
        "t1n": "t1",
        "t1w": "t1",
        "t1ce": "t1ce",
        "t1c": "t1ce",
        "t1gd": "t1ce",
        "t2": "t2",
        "t2w": "t2",
        "flair": "flair",
        "t2f": "flair",
        "t2flair": "flair",
    }
)
"""Every spelling of a contrast that is understood, in lower case."""
_TRUTH: Final = "seg"
_PASSED_OVER: Final = (".", "labels")
"""Hidden folders, and nnU-Net's labelsTr and labelsTs, whose file names look like channels."""
_Part = Contrast | Literal["seg"]
_ENDING: Final = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_BY_NAME: Final = re.compile(
    rf"^(?:(?P<case>.+)[_-])?(?P<part>{'|'.join(CONTRAST_NAMES)}|{_TRUTH})$", re.IGNORECASE
)
_BY_NUMBER: Final = re.compile(r"^(?P<case>.+)_(?P<number>\d{4})$")


@dataclass(frozen=True)
class StudyFiles:
    """Where the files of one study are.

    Args:
        name: the case as its files or folder are named. It may identify a patient: for file names
            and tables on the user's own screen, not for logs.
        paths: one file per contrast.
        truth: the reference segmentation, if there is one.
    """

    name: str
    paths: Mapping[Contrast, Path]
    truth: Path | None


def find_studies(folder: Path) -> tuple[StudyFiles, ...]:
    """Find every study in a folder and in the folders directly inside it, sorted by name.

    Raises:
        StudyError: no study, an incomplete one, two files for one contrast, or two studies of one
            name. Studies are told by their number in sorted order, never by name.
    """
    groups = _grouped(folder)
    if not groups:
        raise StudyError(
            "folder",
            expected="files named as in BraTS (case_t1, case_t1ce, case_t2, case_flair; or "
            "case-t1n, case-t1c, case-t2w, case-t2f) or nnU-Net (case_0000 to case_0003), "
            "ending in .nii or .nii.gz",
            got="none" if folder.is_dir() else "no folder",
            way_out="Rename the files, or hand over the four images one by one.",
        )
    names = sorted(groups)
    return tuple(
        _study(name, groups[name], f"study {number} of {len(names)} (sorted by name)")
        for number, name in enumerate(names, start=1)
    )


_Group = dict[str, list[Path]]
"""Files of one study by contrast or ``seg``; more than one file is an error told later."""


def _grouped(folder: Path) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for place in (folder, *_subfolders(folder)):
        channels = _channels(place)
        for path in sorted(entry for entry in _entries(place) if entry.is_file()):
            found = _recognise(path, channels)
            if found:
                case, part = found
                groups.setdefault(case, {}).setdefault(part, []).append(path)
    return {name: group for name, group in groups.items() if set(group) != {_TRUTH}}


def _recognise(path: Path, channels: tuple[Contrast, ...]) -> tuple[str, str] | None:
    """Tell case and part (a contrast or ``seg``) from a file's name, or None."""
    stem, endings = _ENDING.subn("", path.name)
    if not endings or stem.startswith("."):
        return None
    named = _BY_NAME.match(stem)
    if named:
        part = named["part"].lower()
        return named["case"] or path.parent.name, CONTRAST_NAMES.get(part, part)
    numbered = _BY_NUMBER.match(stem)
    if numbered and int(numbered["number"]) < len(channels):
        return numbered["case"], channels[int(numbered["number"])]
    return None


def _study(name: str, group: _Group, where: str) -> StudyFiles:
    for part, paths in group.items():
        if len(paths) > 1:
            raise StudyError(
                part,
                expected="one file for each contrast of a study, and study names used once",
                got=f"{len(paths)} files in {where}",
                way_out="Keep one of them, or hand over one folder at a time.",
            )
    for contrast in CONTRASTS:
        if contrast not in group:
            given = ", ".join(known for known in CONTRASTS if known in group) or "none"
            raise StudyError(
                contrast,
                expected=f"all of {', '.join(CONTRASTS)}",
                got=f"only {given} in {where}",
                way_out="Add the missing image; none can be replaced by another.",
            )
    chosen = MappingProxyType({contrast: group[contrast][0] for contrast in CONTRASTS})
    return StudyFiles(name, chosen, group[_TRUTH][0] if _TRUTH in group else None)


def _channels(folder: Path) -> tuple[Contrast, ...]:
    """Give the contrast of each nnU-Net channel number, from ``dataset.json`` if there is one."""
    for place in (folder / "dataset.json", folder.parent / "dataset.json"):
        names = _channel_names(place)
        if names is not None:
            return _as_contrasts(names)
    return CONTRASTS


def _channel_names(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    names = (
        content.get("channel_names", content.get("modality")) if isinstance(content, dict) else None
    )
    return names if isinstance(names, dict) else None


def _as_contrasts(names: dict[str, Any]) -> tuple[Contrast, ...]:
    spelled = [
        re.sub("[^a-z0-9]", "", str(names.get(str(n), "")).lower()) for n in range(len(names))
    ]
    contrasts = tuple(CONTRAST_NAMES[name] for name in spelled if name in CONTRAST_NAMES)
    if len(contrasts) != len(spelled) or len(set(contrasts)) != len(contrasts):
        raise StudyError(
            "dataset.json",
            expected=f"channel_names 0, 1, … that are contrasts ({', '.join(CONTRAST_NAMES)})",
            got="another name, a gap or a repetition",
            way_out="Name the contrast of each channel.",
        )
    return contrasts


def _subfolders(folder: Path) -> Iterator[Path]:
    return (
        entry
        for entry in sorted(_entries(folder))
        if entry.is_dir() and not entry.name.startswith(_PASSED_OVER)
    )


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []  # not a folder, or not ours to read: told as "no study"
