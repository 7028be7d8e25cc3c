from __future__ import annotations

import numpy as np
import pytest

from model_core.imaging.grid import Grid
from model_core.preparation.grids import covering, working_grid
from tests.model_core.imaging.builders import oblique_affine


def corners(grid: Grid) -> np.ndarray:
    """The two far corners of the imaged box, in the grid's own axes, in mm from the middle."""
    return np.array(grid.shape) * grid.spacing_mm / 2


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 5.5), (1.2, 0.9, 3.0), (2.0, 2.0, 2.0)])
def test_the_working_grid_is_of_1_mm_and_covers_the_box_by_less_than_a_voxel(
    spacing: tuple[float, float, float],
) -> None:
    grid = Grid((40, 50, 20), oblique_affine(spacing))
    made = working_grid(grid)
    np.testing.assert_allclose(made.spacing_mm, 1.0)
    beyond = corners(made) - corners(grid)
    assert (beyond > -1e-6).all()
    assert (beyond < 0.5 + 1e-6).all()


def test_the_middle_and_the_axes_stay() -> None:
    grid = Grid((40, 50, 20), oblique_affine((0.5, 0.7, 5.5)))
    made = working_grid(grid)
    middles = [g.affine @ (*((np.array(g.shape) - 1) / 2), 1) for g in (grid, made)]
    np.testing.assert_allclose(middles[0], middles[1], atol=1e-9)
    cosines = [g.affine[:3, :3] / g.spacing_mm for g in (grid, made)]
    np.testing.assert_allclose(cosines[0], cosines[1], atol=1e-12)


def test_a_grid_of_1_mm_is_its_own_working_grid() -> None:
    grid = Grid((10, 11, 12), oblique_affine((1.0, 1.0, 1.0)))
    assert working_grid(grid) is grid


def test_a_coarser_lattice_covers_the_box_too() -> None:
    grid = Grid((240, 240, 155), oblique_affine((1.0, 1.0, 1.0)))
    made = covering(grid, (7.3, 7.3, 7.3))
    assert made.shape == (33, 33, 22)
    assert (corners(made) >= corners(grid)).all()
