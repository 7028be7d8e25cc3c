"""The head's frame and the random fields in it."""

from __future__ import annotations

import numpy as np
import pytest

from model_core.phantom.frame import FULL_SHAPE, head_frame, main_part, smooth_noise


def test_full_size_voxels_measure_one_head_millimetre_from_the_origin() -> None:
    frame = head_frame(FULL_SHAPE)
    first = [box.start for box in frame.box]

    assert frame.step == (1.0, 1.0, 1.0)
    assert frame.x.ravel()[0] == first[0] - 119.5  # grows to the left
    assert frame.y.ravel()[0] == 128.0 - first[1]  # falls towards posterior
    assert frame.z.ravel()[0] == first[2] - 72.0


def test_a_smaller_volume_shows_the_same_extent_of_the_head() -> None:
    full, half = head_frame(FULL_SHAPE), head_frame((120, 120, 78))

    for a, b, step in zip(
        (full.x, full.y, full.z), (half.x, half.y, half.z), half.step, strict=True
    ):
        assert abs(a).max() == pytest.approx(abs(b).max(), abs=step)


def test_noise_on_the_grid_is_the_noise_at_its_points() -> None:
    frame = head_frame((24, 24, 16))
    noise = smooth_noise(np.random.default_rng(1), 30.0)
    points = np.broadcast_arrays(frame.x, frame.y, frame.z)

    assert noise.on(frame) == pytest.approx(noise.at(points), abs=1e-4)


@pytest.mark.parametrize(("wavelength", "bandwidth"), [(12.0, None), (27.0, 0.18), (60.0, None)])
def test_noise_has_unit_variance_over_its_lattice(
    wavelength: float, bandwidth: float | None
) -> None:
    noise = smooth_noise(np.random.default_rng(0), wavelength, bandwidth=bandwidth)
    inner = head_frame((96, 96, 62))

    assert noise.on(inner).std() == pytest.approx(1.0, abs=0.25)


def test_band_limited_noise_changes_sign_about_twice_a_wavelength() -> None:
    line = smooth_noise(np.random.default_rng(3), 24.0, bandwidth=0.15).on(head_frame(FULL_SHAPE))
    crossings = (np.diff(np.sign(line), axis=0) != 0).mean()

    # An isotropic field of wave number k crosses zero k / (pi * sqrt(3)) times a unit on a line.
    assert crossings == pytest.approx(2 / 24.0 / np.sqrt(3), rel=0.2)


def test_gradient_points_along_the_head_axes() -> None:
    frame = head_frame((24, 24, 16))
    gx, gy, gz = frame.gradient(2.0 * frame.x + 3.0 * frame.y - frame.z)

    assert gx == pytest.approx(2.0, abs=1e-3)
    assert gy == pytest.approx(3.0, abs=1e-3)
    assert gz == pytest.approx(-1.0, abs=1e-3)


def test_main_part_keeps_the_largest_piece_only() -> None:
    mask = np.zeros((6, 6, 6), np.bool_)
    mask[0, 0, :2] = True
    mask[3:5, 3:5, 3:5] = True

    kept = main_part(mask)

    assert kept.sum() == 8
    assert kept[3, 3, 3]
