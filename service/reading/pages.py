"""Anonymous files: how four volumes and an account travel from a process that is not trusted.

The parent makes them empty and hands over their descriptors; the child fills them. They have no
name, so nothing is left behind, whoever dies. The parent looks into them only after the child has
ended, and seals them first where the system can: nobody changes what has been checked.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_core.types import CONTRASTS, Contrast, Shape3
from service.reading.message import ACCOUNT_BYTES

__all__ = ["NonsenseError", "Pages", "contents", "fill", "pour", "say"]

_STORED: Final = np.dtype(np.float32)
_ORDER: Final = "F"
"""First axis fastest, as in the files that the volumes came from."""


class NonsenseError(Exception):
    """The child left something that cannot be what it says."""


class Pages:
    """The files of one reading, as the parent holds them; close them by leaving the context."""

    def __init__(self) -> None:
        self._closing = ExitStack()
        try:
            self.volumes: dict[Contrast, int] = {
                contrast: _anonymous_file(self._closing) for contrast in CONTRASTS
            }
            self.account = _anonymous_file(self._closing)
        except OSError:
            self._closing.close()
            raise

    def __enter__(self) -> Pages:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.close()

    @property
    def descriptors(self) -> list[int]:
        """The volumes' descriptors in the order of `CONTRASTS`, then the account's."""
        return [*self.volumes.values(), self.account]

    def read_account(self) -> bytes:
        """What the child said: at most one byte more than an account may have."""
        return os.pread(self.account, ACCOUNT_BYTES + 1, 0)

    def give(self, content: bytes) -> None:
        """Write what a child is to work on, before it begins."""
        pour(self.volumes[CONTRASTS[0]], content)

    def documents(self, sizes: Sequence[int]) -> list[bytes]:
        """What a child wrote, in its order.

        Raises:
            NonsenseError: a file has another size, or someone may still write to it.
        """
        found = []
        for contrast, size in zip(CONTRASTS[1:], sizes, strict=False):
            page = self.volumes[contrast]
            _seal(page)
            if os.fstat(page).st_size != size:
                raise NonsenseError
            found.append(contents(page))
        if len(found) != len(sizes):
            raise NonsenseError
        return found

    def map_volume(self, contrast: Contrast, shape: Shape3) -> NDArray[np.float32]:
        """The voxels of one volume, without a copy; writing to them changes no file.

        Raises:
            NonsenseError: the file has another size, or someone may still write to it.
        """
        page = self.volumes[contrast]
        _seal(page)
        size = math.prod(shape) * _STORED.itemsize
        if os.fstat(page).st_size != size:
            raise NonsenseError
        mapped = mmap.mmap(page, size, access=mmap.ACCESS_COPY)  # lives as long as the array
        return np.frombuffer(mapped, _STORED).reshape(shape, order=_ORDER)


def fill(page: int, array: NDArray[Any]) -> None:
    """Write an array into an empty file, first axis fastest; the child's side of `map_volume`."""
    flat = np.asarray(array, _STORED, order=_ORDER).T.reshape(-1)
    _write(page, flat.data.cast("B"), 0)


def pour(page: int, content: bytes) -> None:
    """Write bytes into an empty file; the other side has `contents`."""
    _write(page, memoryview(content), 0)


def contents(page: int) -> bytes:
    """All bytes of a file."""
    return os.pread(page, os.fstat(page).st_size, 0)


def say(page: int, line: bytes) -> None:
    """Append to an account; the child's side of `Pages.read_account`."""
    _write(page, memoryview(line), os.fstat(page).st_size)


def _write(page: int, content: memoryview, at: int) -> None:
    while content:
        written = os.pwrite(page, content, at)
        content, at = content[written:], at + written


def _anonymous_file(closing: ExitStack) -> int:
    if not hasattr(os, "memfd_create"):  # macOS
        return closing.enter_context(tempfile.TemporaryFile()).fileno()
    page = os.memfd_create("segmamba-reading", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    closing.callback(os.close, page)
    return page


def _seal(page: int) -> None:
    """Forbid every change from now on; refused while someone has the file mapped for writing."""
    if not hasattr(os, "memfd_create"):
        return
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    try:
        fcntl.fcntl(page, fcntl.F_ADD_SEALS, seals)
    except OSError as error:
        raise NonsenseError from error
