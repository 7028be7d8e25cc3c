"""The contrasts of a study beside its label map: on its grid, as small NIfTI files.

A page or a viewer that lays a label map over its images needs both on one grid. What is kept is
what the network was shown (registered, stripped, as far as the study needed it), carried onto the
grid of the label map; nothing of a header but the geometry goes with it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from model_core.imaging.nifti_layout import lay_out
from model_core.imaging.resample import LINEAR, resample
from model_core.imaging.volume import Volume
from model_core.pipeline.files import DISAGREEMENT, IMAGES
from model_core.preparation.rigid import moved_grid
from model_core.types import Contrast

if TYPE_CHECKING:
    from model_core.inference.segmentation import Segmentation
    from model_core.preparation.prepared import PreparedStudy

_LARGEST: Final = 2**15 - 1
_SLOPES: Final[Mapping[int, tuple[int, str]]] = {348: (112, "<ff"), 540: (176, "<dd")}
"""Where NIfTI-1 and -2 headers, told by their size, keep scl_slope and scl_inter, and how."""
_GZIP_LEVEL: Final = 1


def on_label_map(prepared: PreparedStudy, contrasts: Sequence[Contrast]) -> dict[Contrast, Volume]:
    """The prepared contrasts on the grid of the label map; exact where nothing was moved."""
    images = prepared.study.volumes
    return {
        contrast: Volume(carried(prepared, images[contrast].array), prepared.native.affine)
        for contrast in contrasts
    }


def carried(prepared: PreparedStudy, values: NDArray[Any]) -> NDArray[Any]:
    """Bring an array from the prepared study's grid onto that of the label map, linearly."""
    source = prepared.study.native.grid
    target = moved_grid(prepared.native.grid, prepared.onto_fixed)
    if source.shape == target.shape and np.array_equal(source.affine, target.affine):
        return values
    return resample(values.astype(np.float32, copy=False), source, target, order=LINEAR)


def image_files(images: Mapping[Contrast, Volume], found: Segmentation) -> dict[str, bytes]:
    """The files, by name.

    Args:
        images: on the grid of the label map, from `on_label_map`.
        found: the segmentation on that grid.
    """
    like = found.native
    files = {IMAGES[contrast]: encode_image(one.array, like) for contrast, one in images.items()}
    if found.disagreement is not None:
        raw = lay_out(found.disagreement, like, description="")
        files[DISAGREEMENT] = igzip.compress(raw, _GZIP_LEVEL, mtime=0)
    return files


def encode_image(values: NDArray[Any], like: Volume) -> bytes:
    """An image as .nii.gz of int16 with a slope: its own values again, to 15 bits.

    Whole numbers that fit are stored as they are. 0 stays exactly 0, so a stripped brain keeps its
    empty surroundings.

    Args:
        values: (X, Y, Z) on the grid of `like`.
        like: the volume whose geometry the file takes over.
    """
    stored, slope = _as_int16(values)
    raw = bytearray(lay_out(stored, like, description=""))
    (size,) = struct.unpack_from("<i", raw)
    place, kind = _SLOPES[size]
    struct.pack_into(kind, raw, place, slope, 0.0)
    packed: bytes = igzip.compress(bytes(raw), _GZIP_LEVEL, mtime=0)
    return packed


def _as_int16(values: NDArray[Any]) -> tuple[NDArray[np.int16], float]:
    largest = float(max(abs(float(values.min())), abs(float(values.max()))))
    whole = np.rint(values)
    if largest <= _LARGEST and np.array_equal(whole, values):
        return whole.astype(np.int16), 1.0
    slope = float(np.float32(largest / _LARGEST))
    return np.clip(np.rint(values / slope), -_LARGEST, _LARGEST).astype(np.int16), slope
