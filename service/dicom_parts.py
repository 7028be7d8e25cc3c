"""A DICOM study on its way to the disk: one zip archive, sent as such or made of many parts.

An archive is kept byte by byte as it was sent and looked at by nobody here. Files that come one by
one become members of an archive of our own, stored uncompressed under numbers; their names are
never looked at. Either way one file waits for the process that opens it, within limits.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from model_core.errors import InputError

FIELD: Final = "dicom"
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_LONGEST_MARK: Final = 4
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that an archive can say: equal studies make equal archives."""


class DicomSink:
    """Takes parts, one after the other.

    Args:
        path: of the archive; it must not exist.
        most: parts that are taken.
    """

    def __init__(self, path: Path, *, most: int) -> None:
        self.path, self.size, self.parts = path, 0, 0
        self._most = most
        self._digests: list[bytes] = []
        self._hash = hashlib.sha256()
        self._head = b""
        self._sent_as_zip = False
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(handle, "wb")
        self._archive: zipfile.ZipFile | None = None
        self._member: IO[bytes] | None = None

    def begin(self) -> None:
        """Another part follows.

        Raises:
            InputError: an archive came already, or there are too many parts.
        """
        self._end_part()
        if self._sent_as_zip:
            raise _mixed()
        if self.parts == self._most:
            raise _too_many(self._most)
        self.parts += 1
        self._hash, self._head = hashlib.sha256(), b""

    def write(self, data: bytes) -> None:
        """Some bytes of the part.

        Raises:
            InputError: the part is an archive, and files came before it.
        """
        self.size += len(data)
        self._hash.update(data)
        if self._member is None and not self._sent_as_zip:
            self._head += data
            if len(self._head) < _LONGEST_MARK:
                return
            data, self._head = self._head, b""
            self._open(data)
        self._put(data)

    def done(self) -> str:
        """Close the archive; the SHA-256 of what was sent, whatever the order of the parts."""
        self._end_part()
        self._close()
        if self._sent_as_zip:
            return self._digests[0].hex()
        return hashlib.sha256(b"".join(sorted(self._digests))).hexdigest()

    def discard(self) -> None:
        """Delete what is still there."""
        with suppress(OSError):  # a full disk
            self._close()
        self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file.closed:
            return
        with self._file:
            if self._member is not None:
                self._member.close()
            if self._archive is not None:
                self._archive.close()

    def _open(self, head: bytes) -> None:
        """Decide by a part's first bytes where it goes."""
        if head.startswith(_ZIP):
            if self.parts > 1:
                raise _mixed()
            self._sent_as_zip = True
            return
        if self._archive is None:
            self._archive = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)
        self._member = self._archive.open(zipfile.ZipInfo(f"{self.parts:06d}", _EPOCH), "w")

    def _put(self, data: bytes) -> None:
        (self._file if self._member is None else self._member).write(data)

    def _end_part(self) -> None:
        if self.parts == 0 or len(self._digests) == self.parts:
            return
        if self._head:  # shorter than any mark
            head, self._head = self._head, b""
            self._open(head)
            self._put(head)
        if self._member is not None:
            self._member.close()
            self._member = None
        self._digests.append(self._hash.digest())


def _mixed() -> InputError:
    return InputError(
        FIELD,
        expected="either one zip archive or DICOM files",
        got="an archive and other parts",
        way_out="Put everything into one archive, or send the files without it.",
    )


def _too_many(most: int) -> InputError:
    return InputError(
        FIELD,
        expected=f"at most {most} files",
        got="more",
        way_out="Send the four series only, or one zip archive.",
    )
