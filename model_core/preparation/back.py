"""The way back: labels from the grid on which a study was prepared onto a contrast's own grid.

Each label is carried over as a mask, linearly, and every voxel takes the label that has most of it:
numbers of labels are never mixed. Where the other grid is coarser the masks are averaged first, so
a voxel of a thick slice holds what most of it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_core.imaging.grid import Grid
from model_core.imaging.resample import LINEAR, resample
from model_core.labels import LabelArray


def carry_labels(labels: LabelArray, source: Grid, target: Grid) -> LabelArray:
    """Bring a label map onto another grid; equal grids give equal labels.

    Args:
        labels: (X, Y, Z) on ``source``, small whole numbers, 0 is background.
        source: where they live.
        target: where they are wanted, in the same world.

    Returns:
        (X, Y, Z) on ``target``, uint8; beyond the source's box there is background.
    """
    if source.shape == target.shape and np.array_equal(source.affine, target.affine):
        return labels.copy()
    shares = {
        int(label): resample((labels == label).astype(np.float32), source, target, order=LINEAR)
        for label in np.unique(labels[labels > 0])
    }
    carried = np.zeros(target.shape, np.uint8)
    most: NDArray[np.float32] = 1 - sum(shares.values(), np.zeros(target.shape, np.float32))
    for label, share in shares.items():
        ahead = share > most
        carried[ahead] = label
        np.maximum(most, share, out=most)
    return carried
