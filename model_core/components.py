"""The connected parts of a mask, and the box around it.

Connectivity 6 joins voxels that share a face, 18 also an edge, 26 also a corner.
"""

from __future__ import annotations

from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_core.labels import Mask

Connectivity = Literal[6, 18, 26]
_THIN = 3


def connected_components(mask: Mask, connectivity: Connectivity) -> tuple[NDArray[np.integer], int]:
    """Number the connected parts of a 3-D mask.

    Returns:
        ids: the mask's shape, 0 outside, 1 to `count` inside, in array order of the first voxel.
        count: how many parts there are.
    """
    ids, count = cc3d.connected_components(
        _with_room(mask), connectivity=connectivity, return_N=True, binary_image=True
    )
    x, y, z = mask.shape
    return ids[:x, :y, :z], count


def bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box of slices that holds every true voxel of a mask that has one."""
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    return tuple(box)


def _with_room(mask: Mask) -> Mask:
    """Widen a thin array: with 26-connectivity cc3d 4.1 runs out of ids in lines and sheets."""
    thin = [(0, int(size <= _THIN)) for size in mask.shape]
    return np.pad(mask, thin) if any(after for _, after in thin) else mask
