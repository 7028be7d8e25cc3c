"""Byte sources that never hand out more than was asked for, gzip or plain.

A gzip file of 1 MB can hold 1 GB of zeros, so nothing here inflates "the whole file": the caller
takes the header first, works out from it how many bytes there must be, takes those, and then asks
that there be no more.
"""

from __future__ import annotations

from typing import Final, Protocol, cast

from isal import isal_zlib

GZIP_MAGIC: Final = b"\x1f\x8b"
MAX_DEFLATE_RATIO: Final = 1032
"""Deflate cannot shrink anything further (258 bytes in two bits): a longer claim is a lie."""
MAX_MEMBERS: Final = 1 << 16
"""Blocked gzip has one member per 64 KiB; millions of empty ones are an attack on our time."""
_PIECE: Final = 1 << 16
_WBITS_GZIP: Final = 31
_STREAM_ERRORS: Final = (
    cast("type[Exception]", isal_zlib.error),  # its stub calls the class an instance
    ValueError,
    OverflowError,
)
"""Not MemoryError: want of memory is no damage, and whoever set a limit should hear of it."""


class BrokenGzipError(Exception):
    """The compressed stream is damaged, cut off, or followed by something else."""


class ByteSource(Protocol):
    """Where the bytes of one file come from, in order."""

    def take(self, count: int) -> bytearray:
        """Give up to ``count`` further bytes; fewer only at the end."""

    def at_end(self) -> bool:
        """Tell whether every byte has been taken and the source ended as it should."""

    def could_hold(self, count: int) -> bool:
        """Tell whether so many bytes in all are possible, before any memory is spent on them."""


def open_bytes(data: bytes) -> ByteSource:
    """Choose the source by the first two bytes, never by a file name."""
    return GzipSource(data) if data[:2] == GZIP_MAGIC else PlainSource(data)


class PlainSource:
    """Bytes as they are."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._next = 0

    def take(self, count: int) -> bytearray:
        """Give up to ``count`` further bytes."""
        piece = bytearray(self._data[self._next : self._next + count])
        self._next += len(piece)
        return piece

    def at_end(self) -> bool:
        """Tell whether every byte has been taken."""
        return self._next == len(self._data)

    def could_hold(self, count: int) -> bool:
        """Tell whether the data are that long."""
        return len(self._data) >= count


class GzipSource:
    """Inflates on demand; concatenated members read as one, zero padding after them is ignored.

    Raises:
        BrokenGzipError: from `take` and `at_end`, on a damaged or truncated stream, a wrong
            checksum, or bytes after the last member that are not zero.
    """

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._next = 0
        self._pending: bytes = b""
        self._member = isal_zlib.decompressobj(wbits=_WBITS_GZIP)
        self._members = 1
        self._done = False

    def take(self, count: int) -> bytearray:
        """Inflate up to ``count`` further bytes."""
        out = bytearray(count)
        filled = 0
        while filled < count and not self._done:
            piece = self._inflate(count - filled)
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
        del out[filled:]
        return out

    def at_end(self) -> bool:
        """Tell whether nothing more would come out; reads the checksum on the way."""
        while not self._done:
            if self._inflate(1):
                return False
        return True

    def could_hold(self, count: int) -> bool:
        """Tell whether deflate could have packed that much into the data."""
        return len(self._data) * MAX_DEFLATE_RATIO >= count

    def _inflate(self, limit: int) -> bytes:
        """Inflate at most ``limit`` bytes; an empty answer means only that some input was used."""
        if not self._pending:
            self._pending = bytes(self._data[self._next : self._next + _PIECE])
            self._next += len(self._pending)
        try:
            piece: bytes = self._member.decompress(self._pending, max_length=limit)
        except _STREAM_ERRORS as error:
            raise BrokenGzipError("damaged") from error
        if self._member.eof:
            self._begin_next_member()
            return piece
        rest: bytes = self._member.unconsumed_tail
        if not piece and len(rest) == len(self._pending):
            raise BrokenGzipError("damaged" if rest else "cut off")
        self._pending = rest
        return piece

    def _begin_next_member(self) -> None:
        rest = self._skip_padding(self._member.unused_data)
        if not rest:
            self._done = True
            return
        if rest[: len(GZIP_MAGIC)] != GZIP_MAGIC[: len(rest)]:
            raise BrokenGzipError("followed by other bytes")
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise BrokenGzipError("cut into too many parts")
        self._pending = rest
        self._member = isal_zlib.decompressobj(wbits=_WBITS_GZIP)

    def _skip_padding(self, rest: bytes) -> bytes:
        rest = rest.lstrip(b"\0")
        while not rest and self._next < len(self._data):
            rest = bytes(self._data[self._next : self._next + _PIECE]).lstrip(b"\0")
            self._next += _PIECE
        return rest
