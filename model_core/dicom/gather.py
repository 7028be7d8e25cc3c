"""The DICOM files in what somebody hands over: a folder, a zip archive, or files.

What is a DICOM file is told by its content, never by its name: ``DICM`` after 128 bytes (PS3.10,
7.1). A DICOMDIR is an index and no image; it is left out like everything else that is none.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from model_core.dicom.archive import ZIP_MARKS, ArchiveLimits, unpacked
from model_core.dicom.limits import refuse
from model_core.dicom.parse import starts_like_dicom
from model_core.errors import ImageError

__all__ = ["ArchiveLimits", "Gathered", "gathered"]

_START_BYTES: Final = 512
_DIRECTORY_MARK: Final = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
"""MediaStorageSOPClassUID (0002,0002) of a DICOMDIR, as it stands in the file."""
_DEFAULTS: Final = ArchiveLimits()
_HAND_OVER: Final = "Hand over a folder, a zip archive, or the files of a study."


class Gathered(tuple[Path, ...]):
    """The DICOM files, in a fixed order.

    Attributes:
        left_out: how many other files there were.
    """

    left_out: int

    def __new__(cls, files: Iterable[Path], left_out: int = 0) -> Gathered:  # noqa: D102
        made = super().__new__(cls, files)
        made.left_out = left_out
        return made


@contextmanager
def gathered(
    source: Path | Sequence[Path],
    limits: ArchiveLimits = _DEFAULTS,
    *,
    workspace: Path | None = None,
) -> Iterator[Gathered]:
    """Find the DICOM files of a source; those of an archive live as long as the context.

    Args:
        source: a folder (searched to the bottom; links are not followed), a zip archive, one file,
            or several of them.
        limits: what is still accepted.
        workspace: where an archive is unpacked, into a private folder that is removed in the end;
            the system's temporary folder by default.

    Raises:
        ImageError: nothing there, no DICOM file among what is there, too many files, or an archive
            that is refused.
    """
    paths = (source,) if isinstance(source, Path) else tuple(source)
    with tempfile.TemporaryDirectory(prefix="dicom-", dir=workspace) as folder:
        found = _found(paths, Path(folder), limits)
        if not found:
            raise refuse("DICOM files", f"none among {found.left_out} files", _HAND_OVER)
        yield found


def _found(paths: Sequence[Path], folder: Path, limits: ArchiveLimits) -> Gathered:
    if len(paths) > limits.files:
        raise _too_many(limits)
    try:
        if not (len(paths) == 1 and _is_archive(paths[0])):
            return _below(paths[0], limits) if _is_one_folder(paths) else _dicom_files(paths)
    except OSError:
        raise refuse(
            "a readable folder, archive or file",
            "one that is not there or not readable",
            _HAND_OVER,
        ) from None  # the cause carries the path
    files, left_out = unpacked(paths[0], folder, limits)
    images = _dicom_files(files)
    return Gathered(images, left_out + images.left_out)


def _too_many(limits: ArchiveLimits) -> ImageError:
    return refuse(f"at most {limits.files} files", "more", "Hand over one study at a time.")


def _is_one_folder(paths: Sequence[Path]) -> bool:
    return len(paths) == 1 and paths[0].is_dir()


def _is_archive(path: Path) -> bool:
    return _is_regular(path) and _start(path).startswith(ZIP_MARKS)


def _is_regular(path: Path) -> bool:
    """Tell a file from a folder, and from a pipe or a device, which may never end."""
    return stat.S_ISREG(path.stat().st_mode)


def _below(folder: Path, limits: ArchiveLimits) -> Gathered:
    """The DICOM files of a folder and the folders in it, sorted; links count as left out."""
    found: list[Path] = []
    for place, names, files in os.walk(folder, followlinks=False):
        names.sort()
        found += (Path(place, name) for name in sorted(files))
        if len(found) > limits.files:
            raise _too_many(limits)
    images = _dicom_files([path for path in found if not path.is_symlink()])
    return Gathered(images, len(found) - len(images))


def _dicom_files(paths: Sequence[Path]) -> Gathered:
    kept = [path for path in paths if _is_image_file(path)]
    return Gathered(kept, len(paths) - len(kept))


def _is_image_file(path: Path) -> bool:
    start = _start(path) if _is_regular(path) else b""
    return starts_like_dicom(start) and _DIRECTORY_MARK not in start


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_START_BYTES)
