"""The stored numbers of a file's frames, decoded by pydicom with GDCM, Pillow or CharLS."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray
from pydicom import uid as uids
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder

from model_core.dicom.codestream import claimed_size
from model_core.dicom.limits import DicomLimits, refuse
from model_core.dicom.parse import parse_with_pixels
from model_core.dicom.quiet import quiet_pydicom
from model_core.dicom.tags import whole
from model_core.errors import ImageError

KEYWORDS: Final = (
    "BitsAllocated", "BitsStored", "Columns", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "HighBit", "NumberOfFrames", "PhotometricInterpretation", "PixelRepresentation",
    "PlanarConfiguration", "Rows", "SamplesPerPixel",
)  # fmt: skip
_TAGS: Final = tuple(tag for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None)
_ENCODED_GROWTH: Final = 1.25
_ENCODED_SLACK_BYTES: Final = 4096
"""No encoder makes a frame larger than this beyond its raw size; more is no frame, or a bomb."""
_EXPORT: Final = "Export the series uncompressed (Explicit VR Little Endian)."


def decoded_frames(
    path: Path, wanted: Container[int], size: tuple[int, int], limits: DicomLimits
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Decode frames of one file.

    Args:
        path: the file; its header has been read before.
        wanted: numbers of the frames, from 0.
        size: the rows and columns that its header says.
        limits: what is still accepted.

    Yields:
        The number of a frame and its stored values, (rows, columns), as whole numbers.

    Raises:
        ImageError: the pixels are missing, cut off, damaged, of another size, or encoded in a way
            that nothing installed here decodes.
    """
    parsed = parse_with_pixels(path, _TAGS, limits)
    frames = _decoded(parsed.dataset, parsed.transfer_syntax)
    for index in range(_count(parsed.dataset)):
        pixels = _next(frames)
        if pixels.shape != size:
            raise refuse("frames of the size that the header says", "another size", _EXPORT)
        if index in wanted:
            yield index, pixels


def _count(dataset: Dataset) -> int:
    return whole(dataset, "NumberOfFrames") or 1


def _decoded(dataset: Dataset, syntax: str) -> Iterator[NDArray[Any]]:
    """Decode one frame after the other; raises whatever a decoder raises."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uids.UID(syntax)
    if uids.UID(syntax).is_encapsulated:
        _check_encoded(dataset, syntax)
    for pixels, _ in get_decoder(syntax).iter_array(dataset, raw=True):
        yield pixels


def _next(frames: Iterator[NDArray[Any]]) -> NDArray[Any]:
    """Take the next frame, and make an `ImageError` of everything that goes wrong."""
    try:
        with quiet_pydicom():
            return next(frames)
    except (ImageError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - four decoders raise anything that bytes can provoke
        raise refuse("pixels that can be decoded", "damaged or missing ones", _EXPORT) from None


def _check_encoded(dataset: Dataset, syntax: str) -> None:
    """Refuse frames that would decode to more than the header says.

    Raises:
        ImageError: likewise.
    """
    rows, columns = (whole(dataset, keyword) or 0 for keyword in ("Rows", "Columns"))
    raw = rows * columns * ((whole(dataset, "BitsAllocated") or 0) // 8)
    most = int(_ENCODED_GROWTH * raw) + _ENCODED_SLACK_BYTES
    for encoded in generate_frames(dataset.PixelData, number_of_frames=_count(dataset)):
        if syntax != uids.RLELossless and claimed_size(encoded) != (rows, columns, 1):
            raise refuse("compressed frames of the size that the header says", "others", _EXPORT)
        if len(encoded) > most:
            raise refuse("compressed frames smaller than their pixels", "larger ones", _EXPORT)
