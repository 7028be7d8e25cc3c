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


def connected_components(mask: Mask, connectivity: Connectivity) -> tuple[NDArray[np.integer], int]:
    """Number the connected parts of a 3-D mask.

    Returns:
        ids: the mask's shape, 0 outside, 1 to `count` inside, in array order of the first voxel.
        count: how many parts there are.
    """
    ids, count = cc3d.connected_components(
        _at_least_a_sheet(mask), connectivity=connectivity, return_N=True, binary_image=True
    )
    return ids[: mask.shape[0], : mask.shape[1]], count


def bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box of slices that holds every true voxel of a mask that has one."""
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    return tuple(box)


def _at_least_a_sheet(mask: Mask) -> Mask:
    """Widen an array that is a line: cc3d 4.1 runs out of ids there with 26-connectivity."""
    if sorted(mask.shape)[1] > 1:
        return mask
    return np.pad(mask, [(0, 1), (0, 1), (0, 0)])
