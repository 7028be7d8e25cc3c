from __future__ import annotations

import numpy as np
import pytest

from model_core.errors import ImageError
from model_core.imaging.grid import Grid
from tests.model_core.imaging.builders import BRATS_AFFINE, oblique_affine


def test_a_brats_grid_says_its_facts() -> None:
    grid = Grid((240, 240, 155), BRATS_AFFINE)
    assert grid.spacing_mm == (1.0, 1.0, 1.0)
    assert grid.axcodes == "LPS"
    assert grid.voxel_ml == pytest.approx(0.001)
    assert grid.describe() == "240×240×155 voxels of 1×1×1 mm, LPS"


def test_spacing_and_volume_do_not_depend_on_tilt() -> None:
    grid = Grid((4, 5, 6), oblique_affine((0.9, 1.1, 3.0)))
    np.testing.assert_allclose(grid.spacing_mm, (0.9, 1.1, 3.0))
    assert grid.voxel_ml == pytest.approx(0.9 * 1.1 * 3.0 / 1000)


def test_a_crop_leaves_every_voxel_at_its_place() -> None:
    grid = Grid((9, 9, 9), oblique_affine())
    part = grid.cropped((2, 3, 4), (5, 5, 5))
    np.testing.assert_allclose(part.affine @ (1, 1, 1, 1), grid.affine @ (3, 4, 5, 1))


def test_grids_match_up_to_the_tolerance_at_the_farthest_corner() -> None:
    grid = Grid((101, 10, 10), np.eye(4))
    stretched = np.diag((1.0 + 5e-5, 1, 1, 1))
    assert grid.distance_mm(stretched) == pytest.approx(5e-3)
    assert grid.matches(Grid((101, 10, 10), stretched))
    assert not grid.matches(Grid((101, 10, 10), stretched), tolerance_mm=1e-3)
    assert not grid.matches(Grid((100, 10, 10), np.eye(4)))


def test_the_affine_cannot_be_changed_afterwards() -> None:
    mine = np.eye(4)
    grid = Grid((2, 2, 2), mine)
    mine[0, 0] = 9
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2


@pytest.mark.parametrize(
    "affine",
    [
        np.zeros((4, 4)),
        np.full((4, 4), np.nan),
        np.diag((1, 1, np.inf, 1)),
        np.diag((1, 1, 0, 1)),
        np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.diag((1, 1, 1, 2)),
        np.eye(3),
        np.diag((1e300, 1e300, 1e300, 1))
        @ np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]),
    ],
)
def test_an_unusable_affine_is_refused(affine: np.ndarray) -> None:
    with pytest.raises(ImageError, match="affine: expected a finite, invertible"):
        Grid((2, 2, 2), affine)


def test_a_minute_but_sound_spacing_is_not_taken_for_singular() -> None:
    assert Grid((2, 2, 2), np.diag((1e-12, 1e-12, 1e-12, 1))).spacing_mm[0] == pytest.approx(1e-12)


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 0), (2, 2, 2, 2)])
def test_an_unusable_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="shape"):
        Grid(shape, np.eye(4))  # type: ignore[arg-type]  # the point of the test
