"""The bytes of one DICOM file made a data set, within limits, whatever the bytes are.

Three doors of pydicom's own reader are closed here: a deflated data set is inflated without a
bound, a length field may claim 4 GiB of a file of 1 kB, and sequences may be nested or split until
memory or the stack ends.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from pydicom import uid as uids
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from model_core.dicom.limits import DicomLimits, refuse
from model_core.dicom.quiet import quiet_pydicom
from model_core.dicom.tags import text
from model_core.errors import ImageError
from model_core.imaging.foreign import recognise

TRANSFER_SYNTAXES: Final = frozenset(
    map(
        str,
        (
            uids.ImplicitVRLittleEndian,
            uids.ExplicitVRLittleEndian,
            uids.ExplicitVRBigEndian,
            uids.RLELossless,
            uids.JPEGBaseline8Bit,
            uids.JPEGExtended12Bit,
            uids.JPEGLossless,
            uids.JPEGLosslessSV1,
            uids.JPEGLSLossless,
            uids.JPEGLSNearLossless,
            uids.JPEG2000Lossless,
            uids.JPEG2000,
        ),
    )
)
"""How a file may be stored: uncompressed, RLE, JPEG, JPEG-LS, JPEG 2000 (PS3.5, chapter 10)."""
DICOM_MARK: Final = b"DICM"
PREAMBLE_BYTES: Final = 128
_START_BYTES: Final = 348
_ITEM_MARKS: Final = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_PIXELS: Final = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_SEND_AGAIN: Final = "Send the file again, or export it anew."


@dataclass(frozen=True, eq=False)
class Parsed:
    """A data set and how it is stored.

    Args:
        dataset: the tags that were asked for.
        transfer_syntax: its UID, one of `TRANSFER_SYNTAXES`.
        pixels_at: bytes of the file before the pixels, or before its end where there are none.
        pixel_bytes: bytes of the file after the tag of the pixels.
    """

    dataset: Dataset
    transfer_syntax: str
    pixels_at: int
    pixel_bytes: int


class _TooMuchError(Exception):
    """A header that would cost more than its limits allow."""


class _Bounded:
    """A file of which only so many bytes, in so many pieces, are ever read."""

    def __init__(self, file: BinaryIO, size: int, *, budget: int, reads: int) -> None:
        self._file = file
        self._size = size
        self._budget = budget
        self._reads = reads
        self.exceeded = False
        self.seek, self.tell = file.seek, file.tell

    @property
    def left(self) -> int:
        """Bytes of the file from here on."""
        return max(0, self._size - self._file.tell())

    def read(self, count: int = -1) -> bytes:
        count = self.left if count < 0 else min(count, self.left)
        self._budget -= count
        self._reads -= 1
        if self._budget < 0 or self._reads < 0:
            self.exceeded = True
            raise _TooMuchError
        return self._file.read(count)


def parse_header(path: Path, tags: Iterable[int], limits: DicomLimits) -> Parsed:
    """Read tags that stand before the pixels.

    Args:
        path: the file.
        tags: those to keep; everything else is skipped.
        limits: what is still accepted.

    Raises:
        ImageError: no DICOM file, a program in disguise, damaged, too large, or stored in a way
            that is not read.
    """
    return _parse(path, tags, limits, with_pixels=False)


def parse_with_pixels(path: Path, tags: Iterable[int], limits: DicomLimits) -> Parsed:
    """Read tags and the encoded pixels; see `parse_header`."""
    return _parse(path, (*tags, _PIXELS[2]), limits, with_pixels=True)


def starts_like_dicom(start: bytes) -> bool:
    """Tell a DICOM file by its first 132 bytes."""
    return start[PREAMBLE_BYTES : PREAMBLE_BYTES + len(DICOM_MARK)] == DICOM_MARK


def _parse(path: Path, tags: Iterable[int], limits: DicomLimits, *, with_pixels: bool) -> Parsed:
    try:
        with path.open("rb") as file:
            size = _size(path, limits)
            _check_start(file.read(_START_BYTES))
            budget = 2 * size + limits.header_bytes if with_pixels else limits.header_bytes
            bounded = _Bounded(file, size, budget=budget, reads=limits.header_reads)
            return _guarded(bounded, tags, limits, with_pixels=with_pixels)
    except (OSError, ValueError):
        raise refuse(
            "a readable file", "one that cannot be read", "Check that it exists and may be read."
        ) from None  # the cause carries the path


def _size(path: Path, limits: DicomLimits) -> int:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError  # a pipe or a device may never end
    if status.st_size > limits.file_bytes:
        raise refuse(
            f"a file of at most {limits.file_bytes} bytes",
            f"{status.st_size}",
            "Leave it out, or export the series as single slices.",
        )
    return status.st_size


def _check_start(start: bytes) -> None:
    foreign = recognise(start)
    if not starts_like_dicom(start):
        got = foreign.name if foreign else ("something else" if start else "an empty file")
        raise refuse("a DICOM file with its preamble", got, "Hand over the files of the scanner.")
    if foreign and foreign.name in ("a program", "a script"):
        raise refuse(
            "a DICOM file and nothing else",
            f"one that begins like {foreign.name}",
            "Do not open it; export the images again.",
        )


def _guarded(
    file: _Bounded, tags: Iterable[int], limits: DicomLimits, *, with_pixels: bool
) -> Parsed:
    try:
        with quiet_pydicom():
            return _read(file, tags, limits, with_pixels=with_pixels)
    except (ImageError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - anything that bytes can provoke, RecursionError included
        if file.exceeded:
            raise refuse(
                f"a header of at most {limits.header_bytes} bytes and {limits.header_reads} pieces",
                "more",
                "Export the series as single slices, without private tags.",
            ) from None
        raise refuse("a whole DICOM file", "a damaged one", _SEND_AGAIN) from None


def _read(file: _Bounded, tags: Iterable[int], limits: DicomLimits, *, with_pixels: bool) -> Parsed:
    stream = cast("BinaryIO", file)
    syntax = _transfer_syntax(stream)
    dataset = read_dataset(
        stream,
        is_implicit_VR=syntax == uids.ImplicitVRLittleEndian,
        is_little_endian=syntax != uids.ExplicitVRBigEndian,
        stop_when=None if with_pixels else _at_pixels,
        specific_tags=[BaseTag(tag) for tag in tags],
    )
    if "SOPClassUID" not in dataset and not with_pixels:
        raise EOFError  # every object has it; pydicom gives nothing where it ran into the end
    _check_items(dataset, limits)
    tag_bytes = 8 if syntax == uids.ImplicitVRLittleEndian else 12
    return Parsed(dataset, syntax, file.tell(), file.left - tag_bytes)


def _transfer_syntax(stream: BinaryIO) -> str:
    stream.seek(PREAMBLE_BYTES + len(DICOM_MARK))
    meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_after_meta)
    syntax = text(meta, "TransferSyntaxUID")
    if syntax in TRANSFER_SYNTAXES:
        return syntax
    raise refuse(
        "pixels stored uncompressed or as RLE, JPEG, JPEG-LS or JPEG 2000",
        "a deflated file" if syntax == uids.DeflatedExplicitVRLittleEndian else "another encoding",
        "Export it as Explicit VR Little Endian.",
    )


def _after_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != 2


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in _PIXELS


def _check_items(dataset: Dataset, limits: DicomLimits) -> None:
    """Refuse sequences of many items before they become objects; those are made when touched."""
    for element in dataset.elements():
        if element.tag in _PIXELS or not isinstance(element, RawDataElement):
            continue  # its size is bounded by the reading itself
        if _items_in(element.value or b"") > limits.header_items:
            raise refuse(f"sequences of at most {limits.header_items} items", "more", _SEND_AGAIN)


def _items_in(value: bytes) -> int:
    return max(value.count(mark) for mark in _ITEM_MARKS)
