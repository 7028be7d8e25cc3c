"""A 4-D NIfTI file (one channel after another) as 3-D files in memory, one per channel.

The voxels are not touched: each part is the file's own header with three axes and its share of the
bytes, so the reader of 3-D images judges them by its own rules.
"""

from __future__ import annotations

import gzip
import math
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from model_core.errors import ImageError
from model_core.imaging.nifti_header import DATA_STARTS, nifti_version

_GZIP: Final = b"\x1f\x8b"


def split_channels(path: Path, argument: str) -> list[bytes]:
    """The 3-D parts of a NIfTI file; a 3-D one has one.

    Raises:
        ImageError: missing, cut off, or no NIfTI.
    """
    raw = _load(path, argument)
    version = nifti_version(raw[:4])
    kind: Any = {1: Nifti1Header, 2: Nifti2Header}.get(version or 0)
    try:
        header = kind.from_fileobj(BytesIO(raw), check=False)
        shape = header.get_data_shape()
        size = math.prod(shape[:3]) * header.get_data_dtype().itemsize
        start = int(header["vox_offset"]) or DATA_STARTS[version or 1]
    except (TypeError, AttributeError, ValueError, HeaderDataError, WrapStructError):
        raise _unusable(argument, "something else") from None
    if len(shape) not in (3, 4) or len(raw) < start + size * math.prod(shape[3:]):
        raise _unusable(argument, f"{len(shape)} dimensions, or fewer bytes than its header says")
    header.set_data_shape(shape[:3])
    header["vox_offset"] = DATA_STARTS[version or 1]
    head = header.binaryblock + bytes(DATA_STARTS[version or 1] - len(header.binaryblock))
    parts = range(start, start + size * math.prod(shape[3:]), size)
    return [head + raw[place : place + size] for place in parts]


def _load(path: Path, argument: str) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == _GZIP else raw
    except FileNotFoundError:
        raise _unusable(argument, "none") from None  # the cause carries the path
    except (OSError, EOFError, zlib.error):
        raise _unusable(argument, "one that cannot be read") from None


def _unusable(argument: str, got: str) -> ImageError:
    return ImageError(
        argument,
        expected="a readable NIfTI file of three dimensions, or four with the channels last",
        got=got,
        way_out="Check that the file exists and is whole.",
    )
