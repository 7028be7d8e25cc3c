"""The images of one study before they are sent: where they lie, and whether they have changed.

NIfTI is sent file by file, as it is. DICOM is sent as one archive: one that the user has, or one
that is made of the DICOM files of a folder, stored under numbers, so that equal studies make equal
archives and no name of a file leaves this machine.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_core.errors import StudyError
from model_core.types import Contrast
from service.client.places import Folder, Place
from service.client.upload import DICOM

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that an archive can say."""
_MARK_AT: Final = 128
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, eq=False)
class Source:
    """One study's files in a place.

    Args:
        place: where they are.
        files: field → name: the four contrasts, or ``dicom`` with an archive; empty otherwise.
        members: the files of a DICOM study that is a folder.
        mark: changes whenever one of the files does; told without reading them.
    """

    place: Place
    files: Mapping[str, str]
    members: Sequence[str] = ()
    mark: str = ""

    @contextmanager
    def opened(self) -> Iterator[dict[str, Path]]:
        """Field → local file, ready to be sent.

        Raises:
            OSError: a file is gone or cannot be read.
            PlaceUnreachable: the storage does not answer.
            StudyError: a folder holds no DICOM file.
        """
        if self.members:
            with self.place.copies(self.members) as paths, tempfile.TemporaryDirectory() as folder:
                yield {DICOM: _archive(paths, Path(folder, "study.zip"))}
            return
        with self.place.copies(list(self.files.values())) as paths:
            yield dict(zip(self.files, paths, strict=True))


def source_of(paths: Mapping[Contrast, Path]) -> Source:
    """A study of files that the user has named."""
    here = Folder(Path())
    files: dict[str, str] = {contrast: str(path) for contrast, path in paths.items()}
    return Source(here, files, mark=joint_mark({name: here.mark(name) for name in files.values()}))


def joint_mark(marks: Mapping[str, str]) -> str:
    """One mark for several files."""
    lines = "\n".join(f"{name}\t{mark}" for name, mark in sorted(marks.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each file.

    Raises:
        OSError: one cannot be read.
    """
    return {field: _digest(path) for field, path in files.items()}


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins like this is DICOM (PS3.10, 7.1)."""
    return start[_MARK_AT : _MARK_AT + 4] == b"DICM"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _archive(paths: Sequence[Path], target: Path) -> Path:
    """Put the DICOM files among some into an archive; what is a link is left out."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            if not path.is_symlink() and is_dicom(_start(path)):
                _add(archive, path)
        if not archive.namelist():
            raise StudyError(
                "study",
                expected="DICOM files",
                got="none in its folder",
                way_out="Hand over the folder that holds them, or a zip archive.",
            )
    return target


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MARK_AT + 4)


def _add(archive: zipfile.ZipFile, path: Path) -> None:
    info = zipfile.ZipInfo(f"{len(archive.namelist()) + 1:06d}", _EPOCH)
    info.file_size = path.stat().st_size  # decides about zip64 before anything is written
    with path.open("rb") as file, archive.open(info, "w") as member:
        while chunk := file.read(_CHUNK):
            member.write(chunk)
