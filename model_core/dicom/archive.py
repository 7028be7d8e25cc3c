"""Zip archives of strangers: every member that is a DICOM file, into numbered files, within limits.

Names in an archive are looked at to refuse it, and never used. What is trusted is counted bytes:
sizes that an archive claims are checked first, and what really comes out is checked again.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from model_core.dicom.limits import refuse
from model_core.dicom.parse import DICOM_MARK, PREAMBLE_BYTES, starts_like_dicom
from model_core.errors import ImageError

ZIP_MARKS: Final = (b"PK\x03\x04", b"PK\x05\x06")
"""How an archive begins, an empty one too."""
METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_START_BYTES: Final = PREAMBLE_BYTES + len(DICOM_MARK)
_DIRECTORY_BYTES: Final = 512
"""Of the archive's directory, for each file that may be in it; an entry has about 100."""
_ENCRYPTED: Final = 0x1
_UNIX: Final = 3
_CHUNK: Final = 2**20
_PACK_AGAIN: Final = "Pack the files anew, with the usual zip of your system."


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """Caps on a set of files and on the archive that they come in.

    Attributes:
        files: files, or members of an archive.
        total_bytes: of all members together, unpacked.
        ratio: unpacked bytes for one byte of the archive; images shrink to a half or a fifth.
        unsuspicious_bytes: unpacked, that are accepted whatever the ratio: blank images shrink a
            thousandfold.
    """

    files: int = 20_000
    total_bytes: int = 8 * 2**30
    ratio: float = 100.0
    unsuspicious_bytes: int = 64 * 2**20


class _Directory:
    """An archive of which no piece longer than its directory may be is read at once.

    `zipfile` reads a directory whole and makes an object of every entry.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._most = most
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        if count > self._most:
            raise _too_many()
        return self._file.read(count)


def unpacked(archive: Path, into: Path, limits: ArchiveLimits) -> tuple[tuple[Path, ...], int]:
    """Unpack the DICOM files of a zip archive.

    Args:
        archive: the archive.
        into: an empty folder; files in it get numbers for names.
        limits: what is still accepted.

    Returns:
        The files, in the order of the archive, and how many members were no DICOM files.

    Raises:
        ImageError: no zip archive, a damaged one, or one that breaks a rule or a limit.
    """
    try:
        with archive.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            bounded = _Directory(file, max(limits.files * _DIRECTORY_BYTES, _CHUNK))
            with zipfile.ZipFile(cast("BinaryIO", bounded)) as opened:
                members = _checked(opened.infolist(), size, limits)
                return _unpacked_all(opened, members, into)
    except ImageError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError):
        raise refuse("a whole zip archive", "a damaged one", _PACK_AGAIN) from None
    except RuntimeError:
        raise refuse("a zip archive without password", "one with", _PACK_AGAIN) from None


def _too_many() -> ImageError:
    return refuse("fewer files in an archive", "too many", "Hand over one study at a time.")


def _checked(
    members: Sequence[zipfile.ZipInfo], size: int, limits: ArchiveLimits
) -> list[zipfile.ZipInfo]:
    """Refuse an archive for what its directory says; give the members that are files."""
    if len(members) > limits.files:
        raise _too_many()
    for member in members:
        _check_member(member)
    total = sum(member.file_size for member in members)
    most = min(limits.total_bytes, max(limits.ratio * size, limits.unsuspicious_bytes))
    if total > most or sum(member.compress_size for member in members) > size:
        raise refuse(
            f"an archive that unpacks to at most {int(most)} bytes",
            "more",
            "Hand over one study at a time, or the files themselves.",
        )
    return [member for member in members if not member.is_dir()]


def _check_member(member: zipfile.ZipInfo) -> None:
    faults = {
        "a link or a device": not _is_plain(member),
        "a name that leads out of the archive": _leads_out(member.orig_filename),
        "an encrypted member": bool(member.flag_bits & _ENCRYPTED),
        "a method other than stored or deflated": member.compress_type not in METHODS,
    }
    for words, found in faults.items():
        if found:
            raise refuse("a zip archive of plain files", f"one with {words}", _PACK_AGAIN)


def _is_plain(member: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(member.external_attr >> 16) if member.create_system == _UNIX else 0
    return kind in (0, stat.S_IFREG, stat.S_IFDIR)


def _leads_out(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or ".." in parts or ":" in parts[0] or "\0" in name


def _unpacked_all(
    opened: zipfile.ZipFile,
    members: Sequence[zipfile.ZipInfo],
    into: Path,
) -> tuple[tuple[Path, ...], int]:
    left = sum(member.file_size for member in members)
    paths: list[Path] = []
    for member in members:
        with opened.open(member) as stream:
            start = stream.read(_START_BYTES)
            if start.startswith(ZIP_MARKS) and not starts_like_dicom(start):
                raise refuse("files in the archive", "an archive in an archive", _PACK_AGAIN)
            if not starts_like_dicom(start):
                continue
            path = into / f"{len(paths):06d}"
            with path.open("xb") as target:
                left -= _copied(_chunks(start, cast("BinaryIO", stream)), target, left)
            paths.append(path)
    return tuple(paths), len(members) - len(paths)


def _chunks(start: bytes, stream: BinaryIO) -> Iterator[bytes]:
    yield start
    while chunk := stream.read(_CHUNK):
        yield chunk


def _copied(chunks: Iterator[bytes], target: BinaryIO, most: int) -> int:
    written = 0
    for chunk in chunks:
        written += len(chunk)
        if written > most:
            raise zipfile.BadZipFile
        target.write(chunk)
    return written
