"""Tiny volumes, headers and studies made in code, odd ones included."""

from __future__ import annotations

import gzip
from itertools import permutations, product
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from model_core.imaging.study import Study, make_study
from model_core.imaging.volume import Volume
from model_core.types import CONTRASTS, Shape3

ORIENTATIONS = tuple(
    "".join(letters) for pairs in permutations(("RL", "AP", "SI")) for letters in product(*pairs)
)
BRATS_AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1.0, 0, 239.0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])


def rotation(degrees: float, axis: int) -> NDArray[np.float64]:
    """A turn about one world axis, 3 × 3."""
    angle = np.radians(degrees)
    first, second = (other for other in range(3) if other != axis)
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def oblique_affine(spacing: tuple[float, float, float] = (0.9, 1.1, 3.0)) -> NDArray[np.float64]:
    """A clinical-looking affine: tilted about two axes, off-centre."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(12, 0) @ rotation(-7, 2) * spacing
    affine[:3, 3] = (-80.5, 31.25, -12.0)
    return affine


def random_image(shape: Shape3 = (9, 10, 11), seed: int = 0) -> NDArray[np.float32]:
    """Positive noise in a ball-like blob, 0 outside: a stripped brain for those who squint."""
    generator = np.random.default_rng(seed)
    image = generator.uniform(50, 400, shape).astype(np.float32)
    centre = [(size - 1) / 2 + 0.4 for size in shape]
    axes = np.ogrid[tuple(slice(0, size) for size in shape)]
    distance = sum(
        ((axis - middle) / (0.42 * size)) ** 2
        for axis, middle, size in zip(axes, centre, shape, strict=True)
    )
    image[distance > 1] = 0
    return image


def random_study(
    shape: Shape3 = (9, 10, 11), affine: NDArray[np.float64] = BRATS_AFFINE, seed: int = 0
) -> Study:
    """Four different images of one blob."""
    return make_study(
        {
            contrast: Volume(random_image(shape, seed + number), affine)
            for number, contrast in enumerate(CONTRASTS)
        }
    )


def nifti_bytes(
    array: NDArray[Any],
    affine: NDArray[np.float64] = BRATS_AFFINE,
    *,
    version: int = 1,
    endianness: str = "<",
    compress: bool = True,
    **fields: Any,
) -> bytes:
    """A file as nibabel lays it out, with any header field overwritten afterwards."""
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(array.dtype.newbyteorder("="))
    header.set_data_shape(array.shape)
    header.set_qform(affine, code=fields.pop("qform_code", 1))
    header.set_sform(affine, code=fields.pop("sform_code", 1))
    header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    header["xyzt_units"] = 2
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["magic"] = f"n+{version}"
    header["vox_offset"] = 352 if version == 1 else 544
    for name, value in fields.items():
        header[name] = value
    gap = int(header["vox_offset"]) - len(header.binaryblock) if "vox_offset" not in fields else 4
    voxels = array.astype(array.dtype.newbyteorder(endianness)).tobytes(order="F")
    raw = bytes(header.binaryblock) + bytes(gap) + voxels
    return gzip.compress(raw, 1, mtime=0) if compress else raw
