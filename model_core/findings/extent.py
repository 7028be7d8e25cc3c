"""How far apart the outermost points of a mask are, in the plane or in space.

The surface of a mask is taken half-way between a voxel centre inside and the neighbouring one
outside, where marching cubes puts it: the points of the *surface* are centres of voxel faces. So
one voxel is as long as its longest side, and a smooth shape is measured without bias, neither a
voxel short (centre to centre) nor a diagonal long (corner to corner). The maximum diameter over
those points is that of the Image Biomarker Standardisation Initiative (Zwanenburg et al.,
Radiology 2020, doi 10.1148/radiol.2020191145).

Frame: points are voxel indices (integers are centres); `axes` turns index steps into mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from model_core.labels import Mask

Points = NDArray[np.float64]
"""(N, D), one point a row."""
SAME_LENGTH: Final = 1e-9
"""Relative difference below which two lengths are one: far above rounding, far below a voxel."""


@dataclass(frozen=True, eq=False)
class Extent:
    """The longest diameter of a set of points.

    Args:
        length_mm: its length.
        pairs: (T, 2, D) every pair of points that far apart, as voxel indices; at least one.
        hull: (H, D) the corners of the convex hull, as voxel indices.
    """

    length_mm: float
    pairs: NDArray[np.float64]
    hull: Points


def surface_points(mask: Mask) -> Points:
    """Face centres of a D-dimensional mask: the first and last on every line of voxels.

    Those between them lie inside the convex hull and can be no end of a longest diameter.

    Args:
        mask: at least one voxel is true.

    Returns:
        (N, D) voxel indices, each with one half-integer.
    """
    return np.concatenate([_ends(mask, axis) for axis in range(mask.ndim)])


def longest_diameter(points: Points, axes: NDArray[np.float64]) -> Extent:
    """The farthest pairs of points; exact, for they are corners of the convex hull.

    Args:
        points: (N, D) voxel indices that do not all lie in one hyperplane.
        axes: (W, D) the step of each index in mm; the frame is the caller's.
    """
    hull: Points = points[ConvexHull(points).vertices]
    distances: NDArray[np.float64] = pdist(hull @ axes.T)
    length = float(distances.max())
    farthest = np.flatnonzero(distances >= length * (1 - SAME_LENGTH))
    return Extent(length, hull[_pairs_at(farthest, len(hull))], hull)


def _ends(mask: Mask, axis: int) -> Points:
    used = mask.any(axis=axis)
    lines = np.argwhere(used).astype(np.float64)
    first = mask.argmax(axis=axis)[used]
    last = mask.shape[axis] - 1 - np.flip(mask, axis).argmax(axis=axis)[used]
    return np.concatenate(
        [np.insert(lines, axis, first - 0.5, axis=1), np.insert(lines, axis, last + 0.5, axis=1)]
    )


def _pairs_at(condensed: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Rows and columns (T, 2) of positions in the condensed distances between `count` points."""
    starts = np.concatenate([[0], np.cumsum(np.arange(count - 1, 0, -1))])
    rows = np.searchsorted(starts, condensed, side="right") - 1
    return np.stack([rows, condensed - starts[rows] + rows + 1], axis=1)
