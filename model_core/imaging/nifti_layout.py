"""The bytes of a NIfTI file: header, extension, voxels, with the geometry of another volume.

A volume that came from a file brings that file's own numbers (`NiftiFrame`), and they are written
unchanged. One that was made in code or turned gets numbers derived from its affine. Either way the
finished header is read back, by the same rules as a stranger's file, before anything is returned.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, Final

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from numpy.typing import NDArray

from model_core.errors import ImageError
from model_core.imaging.nifti_header import DATA_STARTS, ReadLimits, parse_header, refuse
from model_core.imaging.volume import NiftiFrame, Volume

WRITE_TOLERANCE_MM: Final = 1e-3
"""A written affine may differ from the wanted one by float32 rounding and no more."""
ORTHOGONAL_TOLERANCE: Final = 1e-5
"""Cosine between two array axes above which a qform, being a rotation, cannot say the affine."""
_ANY_SIZE: Final = ReadLimits(voxels=2**63, longest_axis=2**31, shortest_axis=1)
_COMMENT_ECODE: Final = 6
_INTENT_LABEL: Final = 1002
_DESCRIPTION_BYTES: Final = 79
_NIFTI1_LONGEST_AXIS: Final = 2**15 - 1


def lay_out(
    array: NDArray[Any],
    like: Volume,
    *,
    description: str,
    label_table: dict[str, Any] | None = None,
) -> bytes:
    """Lay out one uncompressed file: header, extension, voxels (first axis fastest)."""
    frame = like.header or NiftiFrame()
    version = 2 if frame.version == 2 or max(like.shape) > _NIFTI1_LONGEST_AXIS else 1
    kind: Any = Nifti1Header if version == 1 else Nifti2Header
    header = kind(endianness="<")
    header.set_data_dtype(array.dtype.newbyteorder("="))
    header.set_data_shape(like.shape)
    header["descrip"] = description.encode("ascii", "replace")[:_DESCRIPTION_BYTES]
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["magic"] = f"n+{version}"
    extension = b""
    if label_table is not None:
        header["intent_code"] = _INTENT_LABEL
        extension = _extension(json.dumps(label_table, sort_keys=True).encode())
    _set_geometry(header, like, frame)
    header["vox_offset"] = DATA_STARTS[version] + len(extension)
    block = bytes(header.binaryblock)
    _check_written(block, version, like)
    has_extension = bytes([bool(extension), 0, 0, 0])
    voxels = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
    return block + has_extension + extension + voxels


def _extension(content: bytes) -> bytes:
    """Frame a comment: its size (a multiple of 16), its code, its bytes, zeros."""
    size = -(-(8 + len(content)) // 16) * 16
    return struct.pack("<ii", size, _COMMENT_ECODE) + content.ljust(size - 8, b"\0")


def _set_geometry(header: Any, like: Volume, frame: NiftiFrame) -> None:
    header["xyzt_units"] = frame.xyzt_units
    if frame.srow is None:
        _derive_geometry(header, like, frame)
        return
    for name, row in zip("xyz", np.reshape(frame.srow, (3, 4)), strict=True):
        header[f"srow_{name}"] = row
    assert frame.quaternion is not None
    assert frame.qoffset is not None
    for letter, number in zip("bcd", frame.quaternion, strict=True):
        header[f"quatern_{letter}"] = number
    for axis, number in zip("xyz", frame.qoffset, strict=True):
        header[f"qoffset_{axis}"] = number
    header["pixdim"][:4] = _tidy_pixdim(frame.pixdim, like)
    header["sform_code"], header["qform_code"] = frame.sform_code, frame.qform_code


def _derive_geometry(header: Any, like: Volume, frame: NiftiFrame) -> None:
    """Say an affine without a source: always as sform if it was, as qform if it is a rotation."""
    axes = like.affine[:3, :3] / np.linalg.norm(like.affine[:3, :3], axis=0)
    rotates = np.allclose(axes.T @ axes, np.eye(3), rtol=0, atol=ORTHOGONAL_TOLERANCE)
    header["pixdim"][1:4] = like.spacing_mm
    if rotates:
        header.set_qform(like.affine, code=frame.qform_code)
    sform_code = frame.sform_code if rotates and frame.qform_code > 0 else frame.sform_code or 1
    header.set_sform(like.affine, code=sform_code)
    if not rotates:
        header["qform_code"] = 0


def _tidy_pixdim(pixdim: tuple[float, ...] | None, like: Volume) -> tuple[float, ...]:
    """Keep the source's qfac and spacing unless they break the rules (qfac ±1, spacing above 0)."""
    assert pixdim is not None
    qfac, *spacing = pixdim
    valid = all(math.isfinite(mm) and mm > 0 for mm in spacing)
    return (-1.0 if qfac < 0 else 1.0, *(spacing if valid else like.spacing_mm))


def _check_written(block: bytes, version: int, like: Volume) -> None:
    """Read the geometry back from the very bytes about to be written."""
    try:
        written = parse_header(block, version=version, argument="affine", limits=_ANY_SIZE).affine
        moved = like.grid.distance_mm(written)
    except ImageError:
        moved = math.inf
    if not moved <= WRITE_TOLERANCE_MM:  # so that NaN is refused too
        raise refuse(
            "affine",
            "a geometry that NIfTI can express",
            "one that does not survive writing",
            "Choose another origin or spacing, or drop a header that belongs to another grid.",
        )
