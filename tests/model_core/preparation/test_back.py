from __future__ import annotations

import numpy as np
import pytest

from model_core.imaging.grid import Grid
from model_core.preparation.back import carry_labels
from model_core.preparation.grids import covering
from model_core.preparation.rigid import moved_grid
from tests.model_core.imaging.builders import ORIENTATIONS, oblique_affine
from tests.model_core.preparation.builders import movement

GRID = Grid((40, 44, 36), oblique_affine((1.0, 1.0, 1.0)))


def boxes() -> np.ndarray:
    """A nested lesion: ED around ET around NCR."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[6:30, 8:34, 6:28] = 2
    labels[10:24, 12:28, 10:24] = 3
    labels[14:20, 16:24, 14:20] = 1
    return labels


def tilted(grid: Grid, degrees: tuple[float, float, float]) -> Grid:
    """The grid turned about its own middle."""
    middle = grid.affine[:3] @ (*((np.array(grid.shape) - 1) / 2), 1)
    turn = movement(degrees, (0, 0, 0))
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    return moved_grid(grid, turn)


def centroid_mm(mask: np.ndarray, grid: Grid) -> np.ndarray:
    index = np.argwhere(mask).mean(axis=0)
    return grid.affine[:3, :3] @ index + grid.affine[:3, 3]


def test_the_same_grid_gives_the_same_labels() -> None:
    labels = boxes()
    carried = carry_labels(labels, GRID, GRID)
    np.testing.assert_array_equal(carried, labels)
    assert carried is not labels


@pytest.mark.parametrize("axcodes", ORIENTATIONS[::5])
def test_another_axis_order_of_the_same_grid_is_a_turn(axcodes: str) -> None:
    turned = GRID.reoriented(axcodes)
    there = carry_labels(boxes(), GRID, turned)
    np.testing.assert_array_equal(carry_labels(there, turned, GRID), boxes())
    assert sorted(np.bincount(there.ravel())) == sorted(np.bincount(boxes().ravel()))


@pytest.mark.parametrize("label", [1, 2, 3])
def test_a_box_lies_where_it_should_in_millimetres_on_an_oblique_thick_grid(label: int) -> None:
    """Carried to a tilted grid of other spacing, its centroid and its volume stay."""
    wider = GRID.cropped((-12, -12, -12), (64, 68, 60))
    target = covering(tilted(wider, (5, -8, 12)), (0.8, 0.8, 1.7))
    carried = carry_labels(boxes(), GRID, target)
    ours, theirs = boxes() == label, carried == label
    np.testing.assert_allclose(centroid_mm(theirs, target), centroid_mm(ours, GRID), atol=0.35)
    assert theirs.sum() * target.voxel_ml == pytest.approx(ours.sum() * GRID.voxel_ml, rel=0.06)


def test_no_label_appears_that_was_not_there() -> None:
    """Between 1 and 3 lies no 2: numbers are never interpolated."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:20], labels[20:] = 1, 3
    target = Grid((50, 55, 45), movement((3, 4, 5), (0.3, 0.4, 0.5)) @ GRID.affine)
    assert set(np.unique(carry_labels(labels, GRID, target))) <= {0, 1, 3}


def test_a_thick_voxel_holds_what_most_of_it_is() -> None:
    labels = np.zeros((4, 4, 8), np.uint8)
    labels[:, :, 0:3] = 2  # three of the first four slices
    labels[:, :, 4:5] = 1  # one of the last four
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    affine[2, 3] = 1.5
    carried = carry_labels(labels, Grid((4, 4, 8), np.eye(4)), Grid((4, 4, 2), affine))
    assert (carried[:, :, 0] == 2).all()
    assert (carried[:, :, 1] == 0).all()


def test_beyond_the_source_there_is_background() -> None:
    labels = np.full(GRID.shape, 2, np.uint8)
    affine = GRID.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ (100, 0, 0)
    assert not carry_labels(labels, GRID, Grid(GRID.shape, affine)).any()


def test_an_empty_map_stays_empty() -> None:
    target = Grid((9, 9, 9), oblique_affine((3.0, 3.0, 3.0)))
    assert not carry_labels(np.zeros(GRID.shape, np.uint8), GRID, target).any()
