"""Whether an image shows a head or a brain alone, told by the volume of what is not background.

A brain with its fluid has at most about 1.9 litres; a head that was scanned whole has more than
2.5. Measured: the brains of 13 BraTS cases 1.18 to 1.73 litres, 20 whole heads (label maps of
SynthSeg) 2.65 to 4.44, one clinical study 3.0 to 3.2. Counting zeros alone calls every head
stripped whose background a scanner or a defacing tool set to zero.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_core.imaging.grid import Grid
from model_core.imaging.volume import Volume

Skull = Literal["stripped", "present", "unknown"]

LARGEST_BRAIN_ML: Final = 2200.0
"""Between the largest brain and the smallest whole head."""
FLAT_BACKGROUND: Final = 0.2
"""A stripped image has one value, 0 as a rule, in at least this part of its voxels: BraTS about
0.8, a tight crop about 0.5. As it comes from the scanner: 0.03 to 0.10 in a clinical study."""
_COARSE_MM: Final = 2.0
_SMALLEST_BRAIN_ML: Final = 400.0
_CUT: Final = 0.5
"""An end slice with this part of the largest slice's area is a cut through the object."""


def look_for_skull(volume: Volume) -> Skull:
    """Tell whether the image shows a head with its skull or a stripped brain.

    Args:
        volume: one image of a head, with any orientation and any intensities.

    Returns:
        ``stripped``, ``present``, or ``unknown`` for a slab through a head on a flat background and
        for what is too small to be a brain.
    """
    values, voxel_ml = _thinned(volume.array, volume.grid)
    background = _flat_background(values)
    if background is None:
        return "present"
    shown = _largest(values != background)
    millilitres = float(np.count_nonzero(shown)) * voxel_ml
    if millilitres > LARGEST_BRAIN_ML:
        return "present"
    if millilitres < _SMALLEST_BRAIN_ML or _is_slab(shown):
        return "unknown"
    return "stripped"


def is_stripped(volume: Volume) -> bool:
    """Tell whether an image can be taken for a brain without its skull, in a background of 0.

    What is too small to be told apart passes if enough of it is 0.
    """
    return has_zero_background(volume.array) and look_for_skull(volume) != "present"


def has_zero_background(array: NDArray[Any]) -> bool:
    """Whether so many voxels are 0 as around a stripped brain; in some whole heads they are too."""
    return bool(1 - np.count_nonzero(array) / array.size >= FLAT_BACKGROUND)


def _thinned(array: NDArray[Any], grid: Grid) -> tuple[NDArray[Any], float]:
    """Every n-th voxel, about two millimetres apart, and the millilitres that each stands for."""
    steps = [max(1, round(_COARSE_MM / mm)) for mm in grid.spacing_mm]
    thin = array[tuple(slice(None, None, step) for step in steps)]
    return thin, grid.voxel_ml * float(np.prod(steps))


def _flat_background(values: NDArray[Any]) -> float | None:
    """The value that most voxels of the volume's edges have, if it is common everywhere too."""
    faces = np.concatenate(
        [np.take(values, end, axis=axis).ravel() for axis in range(3) for end in (0, -1)]
    )
    found, counts = np.unique(faces, return_counts=True)
    value = float(found[counts.argmax()])
    return value if float(np.mean(values == value)) >= FLAT_BACKGROUND else None


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())[1:]
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(labels == int(sizes.argmax()) + 1)
    return filled


def _is_slab(shown: NDArray[np.bool_]) -> bool:
    """Whether the volume's two opposite ends both cut through the object, as no brain's do."""
    for axis in range(3):
        areas = shown.sum(axis=tuple(other for other in range(3) if other != axis))
        if min(areas[0], areas[-1]) > _CUT * areas.max():
            return True
    return False
