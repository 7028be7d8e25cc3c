"""The 95th percentile Hausdorff distance (HD95) of two masks, in millimetres, two ways.

`hd95` is the value of BraTS up to 2022: distances between *surface voxels* (those with a face
neighbour outside the mask, or at the volume's edge), each counting once, linear percentile, the
larger of the two directions. MONAI and medpy compute the same.

`surface_hd95` is the value inside the lesion-wise evaluation of BraTS 2023: distances between
*surface elements* at voxel corners, each counting with its area (S. Nikolov et al., "Clinically
applicable segmentation of head and neck anatomy", the ``surface-distance`` package). The table
of areas comes from that package; the distances are computed here, because the package's own code
needs names that NumPy 2 has dropped. A test binds the two.

A *flat* volume, one voxel deep along one axis only, is a picture: its masks are bounded by contours
in the plane (pixels with an edge neighbour outside; contour elements that count with their length).
In space every pixel would lie at the volume's edge, and an area be compared, not its outline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from surface_distance.lookup_tables import (
    ENCODE_NEIGHBOURHOOD_2D_KERNEL,
    ENCODE_NEIGHBOURHOOD_3D_KERNEL,
    create_table_neighbour_code_to_contour_length,
    create_table_neighbour_code_to_surface_area,
)

from model_core.components import bounding_box
from model_core.labels import Mask
from model_core.metrics.overlap import require_masks
from model_core.types import Spacing

MISSING_MM: Final = 373.13
"""HD95 where exactly one mask is empty (BraTS ≤ 2022): the diagonal of 240 × 240 × 155 mm."""

_Distances = NDArray[np.float64]


def hd95(pred: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """HD95 between surface voxels in mm; both empty → 0, one empty → `MISSING_MM`.

    Args:
        pred: boolean 3-D mask.
        truth: boolean 3-D mask of the same shape.
        spacing_mm: voxel size along the array axes.

    Raises:
        InputError: not two boolean masks of one shape.
    """
    require_masks(pred, truth)
    if not (pred.any() and truth.any()):
        return MISSING_MM if pred.any() or truth.any() else 0.0
    pred, truth, spacing = _in_plane(pred, truth, spacing_mm)
    box = bounding_box(pred | truth)
    surfaces = _surface_voxels(pred[box]), _surface_voxels(truth[box])
    return max(
        float(np.percentile(_distances_to(goal, spacing)[start], 95))
        for start, goal in (surfaces, surfaces[::-1])
    )


def surface_hd95(pred: Mask, truth: Mask, spacing_mm: Spacing) -> float:
    """Area-weighted HD95 between surfaces in mm; both empty → 0, one empty → infinity.

    Raises:
        InputError: not two boolean masks of one shape.
    """
    require_masks(pred, truth)
    if not (pred.any() and truth.any()):
        return float("inf") if pred.any() or truth.any() else 0.0
    pred, truth, spacing = _in_plane(pred, truth, spacing_mm)
    box = bounding_box(pred | truth)
    codes = _corner_codes(pred[box]), _corner_codes(truth[box])
    return max(_weighted_percentile(*pair, spacing) for pair in (codes, codes[::-1]))


def _in_plane(pred: Mask, truth: Mask, spacing_mm: Spacing) -> tuple[Mask, Mask, tuple[float, ...]]:
    """The masks without the thin axis of a flat volume; others as they are."""
    thin = [axis for axis, size in enumerate(truth.shape) if size == 1]
    if len(thin) != 1:
        return pred, truth, spacing_mm
    (axis,) = thin
    spacing = (*spacing_mm[:axis], *spacing_mm[axis + 1 :])
    return pred.squeeze(axis), truth.squeeze(axis), spacing


def _surface_voxels(mask: Mask) -> Mask:
    inner = ndimage.binary_erosion(mask)  # outside the array counts as outside the mask
    return np.asarray(mask & ~inner)


def _distances_to(surface: Mask, spacing_mm: Sequence[float]) -> _Distances:
    """Millimetres from every voxel to the nearest true one."""
    return np.asarray(ndimage.distance_transform_edt(~surface, sampling=spacing_mm))


def _corner_codes(mask: Mask) -> NDArray[np.uint8]:
    """For every voxel corner, which of the voxels around it are inside, as bits: shape + 1."""
    kernel = ENCODE_NEIGHBOURHOOD_3D_KERNEL if mask.ndim == 3 else ENCODE_NEIGHBOURHOOD_2D_KERNEL
    padded = np.pad(mask.view(np.uint8), 1)
    codes = np.zeros([size + 1 for size in mask.shape], dtype=np.uint8)
    for offset, weight in np.ndenumerate(kernel):
        corner = tuple(
            slice(shift, shift + size) for shift, size in zip(offset, codes.shape, strict=True)
        )
        codes += padded[corner] * np.uint8(weight)
    return codes


def _element_sizes(spacing_mm: Sequence[float]) -> _Distances:
    """Area (mm²) or, in the plane, length (mm) of the surface element of every corner code."""
    if len(spacing_mm) == 3:
        return np.asarray(create_table_neighbour_code_to_surface_area(spacing_mm))
    return np.asarray(create_table_neighbour_code_to_contour_length(spacing_mm))


def _weighted_percentile(
    start: NDArray[np.uint8], goal: NDArray[np.uint8], spacing_mm: Sequence[float]
) -> float:
    """The distance that 95 % of the extent of surface `start` keeps from surface `goal`."""
    sizes = _element_sizes(spacing_mm)
    whole = len(sizes) - 1  # all voxels around the corner are inside
    on_start = (start != 0) & (start != whole)
    on_goal = (goal != 0) & (goal != whole)
    distances = _distances_to(on_goal, spacing_mm)[on_start]
    order = np.argsort(distances, kind="stable")
    covered = np.cumsum(sizes[start[on_start]][order])
    index = int(np.searchsorted(covered / covered[-1], 0.95))
    return float(distances[order[min(index, len(order) - 1)]])
