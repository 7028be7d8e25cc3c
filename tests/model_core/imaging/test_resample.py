from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.imaging.grid import Grid
from model_core.imaging.resample import CUBIC, LINEAR, NEAREST, resample, scale
from tests.model_core.imaging.builders import ORIENTATIONS, oblique_affine, random_image, rotation

SOURCE = Grid((16, 18, 14), oblique_affine((1.0, 1.2, 2.0)))


def world(grid: Grid) -> np.ndarray:
    """RAS+ mm of every voxel centre, (3, X, Y, Z)."""
    index = np.indices(grid.shape).reshape(3, -1)
    return (grid.affine[:3, :3] @ index + grid.affine[:3, 3:]).reshape(3, *grid.shape)


def tilted(spacing: tuple[float, float, float], degrees: float) -> Grid:
    """A grid that lies well inside `SOURCE`."""
    affine = SOURCE.affine.copy()
    affine[:3, :3] = rotation(degrees, 2) @ (SOURCE.affine[:3, :3] / SOURCE.spacing_mm) * spacing
    affine[:3, 3] = SOURCE.affine[:3] @ (5, 6, 4, 1)
    return Grid((5, 5, 5), affine)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    spacing=st.tuples(*[st.floats(0.4, 4.0)] * 3),
    degrees=st.floats(-180, 180),
    order=st.sampled_from([NEAREST, LINEAR, CUBIC]),
)
def test_a_constant_stays_that_constant(
    spacing: tuple[float, float, float], degrees: float, order: int
) -> None:
    target = tilted(spacing, degrees)
    constant = np.full(SOURCE.shape, 7.25, np.float32)
    moved = resample(constant, SOURCE, target, order=order, fill=7.25)
    np.testing.assert_allclose(moved, 7.25, rtol=1e-5)


@pytest.mark.parametrize("order", [LINEAR, CUBIC])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.7, 0.9)])
@pytest.mark.parametrize("degrees", [0.0, 17.0])
def test_a_ramp_through_the_world_stays_that_ramp(
    order: int, spacing: tuple[float, float, float], degrees: float
) -> None:
    target = tilted(spacing, degrees)
    slope = np.array((0.3, -0.8, 0.5))
    ramp, expected = (np.tensordot(slope, world(grid), 1) for grid in (SOURCE, target))
    moved = resample(ramp.astype(np.float32), SOURCE, target, order=order)
    np.testing.assert_allclose(moved, expected, atol=2e-2 if order == CUBIC else 1e-3)


def test_the_same_grid_gives_the_same_values_in_a_new_array() -> None:
    image = random_image(SOURCE.shape)
    moved = resample(image, SOURCE, SOURCE)
    np.testing.assert_array_equal(moved, image)
    assert moved is not image


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
@pytest.mark.parametrize("order", [NEAREST, LINEAR])
def test_another_orientation_of_one_grid_is_exact(axcodes: str, order: int) -> None:
    image = random_image(SOURCE.shape)
    target = SOURCE.reoriented(axcodes)
    back = resample(resample(image, SOURCE, target, order=order), target, SOURCE, order=order)
    np.testing.assert_allclose(back, image, rtol=1e-5, atol=1e-4)


def test_nearest_keeps_the_type_and_invents_no_label() -> None:
    labels = np.random.default_rng(0).choice([0, 2, 4], SOURCE.shape).astype(np.uint8)
    moved = resample(labels, SOURCE, tilted((0.6, 0.6, 0.6), 30), order=NEAREST)
    assert moved.dtype == np.uint8
    assert set(np.unique(moved)) == {0, 2, 4}


def test_nearest_takes_the_nearest() -> None:
    source, target = Grid((4, 1, 1), np.eye(4)), np.eye(4)
    target[0, 3] = 0.4
    line = np.array((1, 2, 3, 4), np.uint8).reshape(4, 1, 1)
    moved = resample(line, source, Grid((4, 1, 1), target), order=NEAREST)
    np.testing.assert_array_equal(moved.ravel(), (1, 2, 3, 4))


def test_outside_the_imaged_box_is_filled_and_its_outer_half_voxels_are_not() -> None:
    source = Grid((4, 4, 4), np.eye(4))
    target = np.diag((0.5, 1, 1, 1))
    target[0, 3] = -1.0
    moved = resample(np.full((4, 4, 4), 5.0, np.float32), source, Grid((12, 4, 4), target), fill=-1)
    # world x of the 12 voxels: -1, -0.5, 0 … 4.5; the box reaches from -0.5 to 3.5
    np.testing.assert_allclose(moved[:, 0, 0], [-1, *[5] * 9, -1, -1])


def test_detail_finer_than_the_new_voxels_is_averaged_not_aliased() -> None:
    source = Grid((64, 8, 8), np.eye(4))
    checks = np.broadcast_to(np.arange(64)[:, None, None] % 2 * 100.0, source.shape)
    target = Grid((16, 8, 8), np.diag((4.0, 1, 1, 1)))  # without care: every sample on a 0
    moved = resample(checks, source, target)
    np.testing.assert_allclose(moved[2:-2], 50, atol=1)


@pytest.mark.parametrize("spacing", [0.5, 2.0])
def test_scaling_keeps_the_centre_where_it_is(spacing: float) -> None:
    line = np.zeros((33, 1, 1), np.float32)
    line[12:21] = 1
    size = int(33 / spacing) // 2 * 2 + 1
    scaled = scale(line, (size, 1, 1), step=(spacing, 1, 1)).ravel()
    centre = (np.arange(size) * scaled).sum() / scaled.sum()
    assert centre == pytest.approx((size - 1) / 2, abs=1e-4)
    assert scaled.sum() * spacing == pytest.approx(9, rel=0.1)  # sampled, not integrated


def test_scaling_agrees_with_resampling_between_the_same_two_grids() -> None:
    image = random_image((12, 13, 14))
    source = Grid(image.shape, np.eye(4))
    steps = np.array((0.8, 1.3, 2.0))
    shape = (15, 10, 7)
    affine = np.diag((*steps, 1))
    affine[:3, 3] = ((np.array(source.shape) - 1) - (np.array(shape) - 1) * steps) / 2
    np.testing.assert_allclose(
        scale(image, shape, step=steps), resample(image, source, Grid(shape, affine)), atol=1e-3
    )


def test_linear_interpolation_never_overshoots() -> None:
    image = random_image(SOURCE.shape)
    moved = resample(image, SOURCE, tilted((0.37, 0.61, 0.83), 21))
    assert moved.min() >= 0
    assert moved.max() <= image.max()
