"""Finding the studies of a batch: NIfTI by the names of files, DICOM by folders and archives.

NIfTI studies are named as for ``segmamba segment`` (BraTS, nnU-Net). Beside them, each ``.zip``
right in the place and each folder right in it that holds DICOM files is one DICOM study; a place
with DICOM files right in it is one study itself. What is broken is named and harms no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from model_core.errors import StudyError
from model_core.types import Contrast
from service.client.places import Folder, Place
from service.client.source import Source, is_dicom, joint_mark
from service.client.upload import DICOM

_NIFTI: Final = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_ZIP: Final = re.compile(r"\.zip$", re.IGNORECASE)
_PASSED_OVER: Final = "labels"
"""nnU-Net's labelsTr and labelsTs."""
_TRIED: Final = 3
"""So many files of a folder are looked at; among scans there may be a README or an index."""
_START: Final = 132
_DEPTH: Final = 2


@dataclass
class Found:
    """What a place holds.

    Args:
        studies: name → its files.
        broken: name → why it is no study.
    """

    studies: dict[str, Source] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def find(place: Place, *, called: str) -> Found:
    """The studies of a place.

    Args:
        place: where to look.
        called: the name of a study that is the place itself.

    Raises:
        StudyError: none, or files without folders of which one study is incomplete.
        PlaceUnreachable: the storage does not answer.
    """
    listing = place.files()
    found = Found()
    _find_nifti(place, listing, found)
    _find_dicom(place, listing, found)
    if not (found.studies or found.broken):
        loose = [name for name in listing if "/" not in name]
        if not _holds_dicom(place, loose):
            raise _nothing()
        found.studies[called] = _scans(place, listing, list(listing))
    return found


def find_one(path: Path) -> Source:
    """The one study that a folder or an archive is; all DICOM files of a folder are of one.

    Raises:
        StudyError: none, several, or an incomplete one.
    """
    if path.is_file():
        place: Place = Folder(path.parent)
        return Source(place, {DICOM: path.name}, mark=place.mark(path.name))
    place, found = Folder(path), Found()
    listing = place.files()
    _find_nifti(place, listing, found)
    if found.broken or len(found.studies) > 1:
        raise StudyError(
            "study",
            expected="one study",
            got=f"{len(found.studies) + len(found.broken)}",
            way_out="Name the folder of one of them.",
        )
    for source in found.studies.values():
        return source
    if not any(is_dicom(place.start(name, _START)) for name in listing):
        raise _nothing()
    return _scans(place, listing, list(listing))


def _find_nifti(place: Place, listing: Mapping[str, str], found: Found) -> None:
    from model_core.imaging.study_files import find_studies

    names = [name for name in listing if _is_nifti(name) or name.endswith("dataset.json")]
    names = [name for name in names if name.count("/") < _DEPTH]
    if not any(map(_is_nifti, names)):
        return
    with place.as_folder(names) as folder:
        try:
            studies = find_studies(folder)
        except StudyError:
            if any(_is_nifti(name) and "/" not in name for name in names):
                raise  # which files would be the others' cannot be told
            for name in _folders(names):
                _take_one(place, listing, folder, name, found)
            return
        for study in studies:
            found.studies[study.name] = _images(place, listing, folder, study.paths)


def _take_one(
    place: Place, listing: Mapping[str, str], root: Path, name: str, found: Found
) -> None:
    """The studies of one folder, where those of all folders together are not whole."""
    from model_core.imaging.study_files import find_studies

    try:
        studies = find_studies(root / name)
    except StudyError as error:
        found.broken[name] = str(error)
        return
    for study in studies:
        if found.studies.pop(study.name, None) or study.name in found.broken:
            found.broken[study.name] = "two studies have this name: rename one of them"
        else:
            found.studies[study.name] = _images(place, listing, root, study.paths)


def _images(
    place: Place, listing: Mapping[str, str], root: Path, paths: Mapping[Contrast, Path]
) -> Source:
    files: dict[str, str] = {
        contrast: path.relative_to(root).as_posix() for contrast, path in paths.items()
    }
    return Source(place, files, mark=_mark(listing, files.values()))


def _find_dicom(place: Place, listing: Mapping[str, str], found: Found) -> None:
    for name in listing:
        if "/" not in name and _ZIP.search(name):
            source = Source(place, {DICOM: name}, mark=_mark(listing, [name]))
            _add(found, _ZIP.sub("", name), source)
    below: dict[str, list[str]] = {}
    for name in listing:
        below.setdefault(name.split("/")[0] if "/" in name else "", []).append(name)
    for folder in _folders(listing):
        members = below[folder]
        if not any(map(_is_nifti, members)) and _holds_dicom(place, members):
            _add(found, folder, _scans(place, listing, members))


def _add(found: Found, name: str, source: Source) -> None:
    if name in found.studies:
        del found.studies[name]
        found.broken[name] = "two studies have this name: rename one of them"
    elif name not in found.broken:
        found.studies[name] = source


def _scans(place: Place, listing: Mapping[str, str], members: Sequence[str]) -> Source:
    return Source(place, {}, members=sorted(members), mark=_mark(listing, members))


def _holds_dicom(place: Place, names: Sequence[str]) -> bool:
    return any(is_dicom(place.start(name, _START)) for name in sorted(names)[:_TRIED])


def _folders(names: Mapping[str, str] | Sequence[str]) -> list[str]:
    """The folders right in the place, but for those whose files are no images."""
    found = {name.split("/")[0] for name in names if "/" in name}
    return sorted(name for name in found if not name.startswith(_PASSED_OVER))


def _is_nifti(name: str) -> bool:
    return _NIFTI.search(name) is not None


def _mark(listing: Mapping[str, str], names: Iterable[str]) -> str:
    return joint_mark({name: listing.get(name, "") for name in names})


def _nothing() -> StudyError:
    return StudyError(
        "studies",
        expected="NIfTI files named as in BraTS or nnU-Net, or DICOM: folders or zip archives",
        got="none",
        way_out="Check the path, and the rights where it is storage.",
    )
