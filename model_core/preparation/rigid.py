"""Rigid movements as 4 × 4 matrices in RAS+ millimetres, and how far they move things."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_core.imaging.grid import Grid
from model_core.imaging.volume import Volume

Matrix = NDArray[np.float64]
"""4 × 4, millimetres to millimetres."""


def rotation_degrees(matrix: Matrix) -> float:
    """The angle of the turn about its axis, 0 to 180."""
    cosine = (np.trace(matrix[:3, :3]) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def displacements_mm(first: Matrix, second: Matrix, points: NDArray[np.float64]) -> Matrix:
    """How far apart two movements put each point.

    Args:
        first: one movement.
        second: the other.
        points: (N, 3) in RAS+ mm.

    Returns:
        (N,) in mm.
    """
    difference = first - second
    distances: Matrix = np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1)
    return distances


def moved(volume: Volume, matrix: Matrix) -> Volume:
    """Put a volume elsewhere: every voxel keeps its value and gets another place.

    Exact, because only the affine changes; a later resampling is then the only interpolation.
    """
    return Volume(volume.array, matrix @ volume.affine, warnings=volume.warnings)


def moved_grid(grid: Grid, matrix: Matrix) -> Grid:
    """Put a lattice elsewhere."""
    return Grid(grid.shape, matrix @ grid.affine)


def voxel_places(mask: NDArray[np.bool_], grid: Grid, *, at_most: int = 20_000) -> Matrix:
    """Where the voxels of a mask lie, evenly thinned out.

    Returns:
        (N, 3) in RAS+ mm.
    """
    flat = np.flatnonzero(mask)
    flat = flat[:: max(1, len(flat) // at_most)]
    index = np.stack(np.unravel_index(flat, mask.shape), axis=1)
    places: Matrix = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return places
