"""Which lattice a study is prepared on, and coarser ones to look at it.

All are in RAS+ millimetres and keep the axes of the volume that they are made from, so that this
volume is only ever scaled, never turned.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from model_core.imaging.grid import Grid
from model_core.types import Spacing

WORKING_MM: Final = 1.0
"""The spacing of BraTS data, on which the models were trained."""
SAME_SPACING: Final = 1e-3
"""Relative; below it a grid is on `WORKING_MM` already."""


def working_grid(grid: Grid) -> Grid:
    """Give the 1 mm lattice that covers a grid's imaged box; the grid itself if it is of 1 mm."""
    if max(abs(mm / WORKING_MM - 1) for mm in grid.spacing_mm) <= SAME_SPACING:
        return grid
    return covering(grid, (WORKING_MM,) * 3)


def covering(grid: Grid, spacing_mm: Spacing) -> Grid:
    """Give the lattice of another spacing that covers the imaged box of a grid.

    It has the same axes and the same middle, and reaches beyond the box by less than a voxel.
    """
    ratios = [mm / old for mm, old in zip(spacing_mm, grid.spacing_mm, strict=True)]
    x, y, z = (
        max(1, math.ceil(size / ratio - 1e-6))
        for size, ratio in zip(grid.shape, ratios, strict=True)
    )
    shape = (x, y, z)
    affine = grid.affine.copy()
    affine[:3, :3] *= ratios
    middle = grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:3, 3]
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)
