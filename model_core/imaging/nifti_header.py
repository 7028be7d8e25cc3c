"""What a NIfTI header must say before a single voxel is read.

The header is 348 bytes (NIfTI-1) or 540 bytes (NIfTI-2), in either byte order. `parse_header`
turns it into a `NiftiHeader` whose every field has been checked, or raises `ImageError`; the size
of the voxel data follows from it, so nothing larger is ever inflated or allocated.

Geometry rule: the sform if it is coded, else the qform if it is coded, else the file is refused,
because without either nobody can know left from right. Two coded ones must agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from nibabel import nifti1, nifti2
from numpy.typing import NDArray

from model_core.errors import ImageError
from model_core.imaging.grid import Grid
from model_core.imaging.volume import NiftiFrame
from model_core.types import Shape3

HEADER_BYTES: Final = {1: 348, 2: 540}
DATA_STARTS: Final = {1: 352, 2: 544}
"""Where voxels begin in a single file without extensions, by NIfTI version."""
MAX_EXTENSION_BYTES: Final = 16 * 2**20
VOXEL_TYPES: Final = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
"""NIfTI datatype code → NumPy type. No complex, RGB, binary or 128-bit numbers."""
WARN_DISAGREEMENT_MM: Final = 0.01
"""Beyond this, sform and qform are said to disagree and the sform is used with a warning."""
REFUSE_DISAGREEMENT_MM: Final = 1.0
"""Beyond this, no one can know which of them is meant."""
_UNITS_MM_OR_UNKNOWN: Final = (0, 2)
_UNITS_SPACE_MASK: Final = 0x07


@dataclass(frozen=True)
class ReadLimits:
    """What is still accepted from a stranger.

    Args:
        file_bytes: size of the file as it comes, usually compressed.
        voxels: voxels of one volume.
        longest_axis: voxels along one axis.
        shortest_axis: likewise; a single slice is no volume.
    """

    file_bytes: int = 2**30
    voxels: int = 512**3
    longest_axis: int = 1024
    shortest_axis: int = 8


@dataclass(frozen=True)
class NiftiHeader:
    """A checked header: how to read the voxels and where they lie.

    Args:
        shape: voxels along the three axes.
        dtype: type and byte order of the stored numbers.
        offset: bytes before the first voxel.
        scaling: (slope, intercept), or None when the stored numbers are the values.
        affine: voxel index → RAS+ mm.
        frame: the geometry as it stood in the header.
        warnings: what was tolerated.
    """

    shape: Shape3
    dtype: np.dtype[Any]
    offset: int
    scaling: tuple[float, float] | None
    affine: NDArray[np.float64]
    frame: NiftiFrame
    warnings: tuple[str, ...]

    @property
    def voxels(self) -> int:
        """How many voxels follow."""
        return math.prod(self.shape)

    @property
    def total_bytes(self) -> int:
        """Size of the whole uncompressed file."""
        return self.offset + self.voxels * self.dtype.itemsize


def nifti_version(start: bytes) -> int | None:
    """Recognise NIfTI-1 or NIfTI-2 by the header's own length field, or None."""
    sizes = (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big"))
    for size in sizes:
        for version, length in HEADER_BYTES.items():
            if size == length:
                return version
    return None


def parse_header(block: bytes, *, version: int, argument: str, limits: ReadLimits) -> NiftiHeader:
    """Check a header block of `HEADER_BYTES` bytes.

    Raises:
        ImageError: naming ``argument``; never anything else, whatever the bytes are.
    """
    layout = nifti1.header_dtype if version == 1 else nifti2.header_dtype
    swapped = int.from_bytes(block[:4], "big") == HEADER_BYTES[version]
    order: Literal["<", ">"] = ">" if swapped else "<"
    fields = np.frombuffer(block, layout.newbyteorder(order))[0]
    _check_magic(bytes(fields["magic"]), version, argument)
    shape = _shape(fields, argument, limits)
    dtype = _dtype(fields, argument).newbyteorder(order)
    offset = _offset(fields, version, argument)
    scaling = _scaling(fields, argument)
    frame = _frame(fields, version, argument)
    affine, warnings = _affine(frame, shape, argument)
    return NiftiHeader(shape, dtype, offset, scaling, affine, frame, warnings)


def refuse(argument: str, expected: str, got: str, way_out: str) -> ImageError:
    """Make an `ImageError`, one line per refusal."""
    return ImageError(argument, expected=expected, got=got, way_out=way_out)


def _check_magic(magic: bytes, version: int, argument: str) -> None:
    if magic.startswith(f"n+{version}".encode()):
        return
    pair = magic.startswith(f"ni{version}".encode())
    raise refuse(
        argument,
        "a single-file NIfTI image",
        "half of a .hdr/.img pair" if pair else "an Analyze or damaged header",
        "Convert it to one .nii.gz file.",
    )


def _shape(fields: Any, argument: str, limits: ReadLimits) -> Shape3:
    dim = [int(size) for size in fields["dim"]]
    rank = dim[0]
    sizes = dim[1 : rank + 1] if 3 <= rank <= 7 else []
    if len(sizes) < 3 or any(size != 1 for size in sizes[3:]):
        got = f"{rank} dimensions" if not sizes else f"{'×'.join(map(str, sizes))} values"
        raise refuse(
            argument,
            "one 3-D volume (a fourth axis of length 1 is fine)",
            got,
            "Hand over one volume of the series, or one channel of the image.",
        )
    x, y, z = sizes[:3]
    fits = limits.shortest_axis <= min(x, y, z) and max(x, y, z) <= limits.longest_axis
    if not fits or x * y * z > limits.voxels:
        raise refuse(
            argument,
            f"{limits.shortest_axis} to {limits.longest_axis} voxels along each axis, "
            f"{limits.voxels} in all at most",
            f"{x}×{y}×{z}",
            "Hand over the whole head at a spacing of about 1 mm.",
        )
    return x, y, z


def _dtype(fields: Any, argument: str) -> np.dtype[Any]:
    name = VOXEL_TYPES.get(int(fields["datatype"]))
    if name is None:
        raise refuse(
            argument,
            "integer or floating-point voxels of at most 64 bits",
            f"NIfTI datatype {int(fields['datatype'])}",
            "Convert it to int16 or float32.",
        )
    dtype = np.dtype(name)
    if int(fields["bitpix"]) != 8 * dtype.itemsize:
        raise refuse(
            argument,
            f"{8 * dtype.itemsize} bits per voxel for its datatype",
            f"{int(fields['bitpix'])}",
            "The header contradicts itself: export the image again.",
        )
    return dtype


def _offset(fields: Any, version: int, argument: str) -> int:
    start = DATA_STARTS[version]
    offset = float(fields["vox_offset"])
    if offset == 0:
        return start
    if not (start <= offset <= start + MAX_EXTENSION_BYTES and offset == int(offset)):
        raise refuse(
            argument,
            f"voxels that begin {start} bytes into the file or a little later",
            f"{offset:.6g}",
            "The header is damaged: export the image again.",
        )
    return int(offset)


def _scaling(fields: Any, argument: str) -> tuple[float, float] | None:
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or (slope == 1 and intercept == 0):
        return None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise refuse(
            argument,
            "a finite intensity scale (scl_slope, scl_inter)",
            "NaN or infinity",
            "Export the image again, unscaled or with a finite scale.",
        )
    return slope, intercept


def _frame(fields: Any, version: int, argument: str) -> NiftiFrame:
    units = int(fields["xyzt_units"])
    if units & _UNITS_SPACE_MASK not in _UNITS_MM_OR_UNKNOWN:
        raise refuse(
            argument,
            "millimetres as the unit of space (xyzt_units)",
            "metres, micrometres or an unknown unit",
            "Convert the image to millimetres.",
        )
    rows = [fields[f"srow_{axis}"] for axis in "xyz"]
    return NiftiFrame(
        version=version,
        sform_code=int(fields["sform_code"]),
        qform_code=int(fields["qform_code"]),
        xyzt_units=units,
        srow=tuple(float(number) for row in rows for number in row),
        quaternion=tuple(float(fields[f"quatern_{letter}"]) for letter in "bcd"),
        qoffset=tuple(float(fields[f"qoffset_{axis}"]) for axis in "xyz"),
        pixdim=tuple(float(number) for number in fields["pixdim"][:4]),
    )


def _affine(
    frame: NiftiFrame, shape: Shape3, argument: str
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    if frame.sform_code <= 0 and frame.qform_code <= 0:
        raise refuse(
            argument,
            "a coded orientation (sform_code or qform_code above 0)",
            "neither",
            "Left and right are unknown: convert it again from DICOM, for example with dcm2niix.",
        )
    if frame.sform_code <= 0:
        return _usable(_qform(frame), shape, argument, "qform").affine, ()
    assert frame.srow is not None
    sform = np.vstack([np.reshape(frame.srow, (3, 4)), (0.0, 0.0, 0.0, 1.0)])
    grid = _usable(sform, shape, argument, "sform")
    if frame.qform_code <= 0:
        return grid.affine, ()
    return grid.affine, _disagreement(
        grid, _usable(_qform(frame), shape, argument, "qform"), argument
    )


def _disagreement(sform: Grid, qform: Grid, argument: str) -> tuple[str, ...]:
    distance = sform.distance_mm(qform.affine)
    if not distance <= REFUSE_DISAGREEMENT_MM:  # so that NaN is refused too
        raise refuse(
            argument,
            f"sform and qform within {REFUSE_DISAGREEMENT_MM:g} mm of each other",
            f"{distance:.3g} mm between them",
            "Set the code of the wrong one to 0 in the header.",
        )
    if distance > WARN_DISAGREEMENT_MM:
        return (f"sform and qform differ by up to {distance:.2g} mm; the sform was used",)
    return ()


def _usable(affine: NDArray[np.float64], shape: Shape3, argument: str, form: str) -> Grid:
    try:
        return Grid(shape, affine)
    except ImageError as error:
        raise refuse(
            argument, f"a {form} with {error.expected}", error.got, error.way_out
        ) from None


def _qform(frame: NiftiFrame) -> NDArray[np.float64]:
    """Rotation (unit quaternion a, b, c, d with a ≥ 0) × spacing, qfac flipping the third axis.

    Source: nifti1.h, "METHOD 2". A quaternion longer than 1 by rounding is normalised.
    """
    assert frame.quaternion is not None
    assert frame.qoffset is not None
    assert frame.pixdim is not None
    b, c, d = frame.quaternion
    square = b * b + c * c + d * d
    if not square <= 1 + 1e-5:  # written so that NaN fails too
        return np.full((4, 4), np.nan)
    a = math.sqrt(max(0.0, 1 - square))
    b, c, d = (n / math.sqrt(max(1.0, square)) for n in (b, c, d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    qfac, x, y, z = frame.pixdim
    affine = np.eye(4)
    with np.errstate(all="ignore"):
        affine[:3, :3] = rotation * (abs(x), abs(y), abs(z) * (-1 if qfac < 0 else 1))
    affine[:3, 3] = frame.qoffset
    return affine
