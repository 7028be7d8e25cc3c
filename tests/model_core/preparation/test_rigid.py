from __future__ import annotations

import numpy as np
import pytest

from model_core.imaging.grid import Grid
from model_core.preparation.rigid import displacements_mm, moved, rotation_degrees, voxel_places
from tests.model_core.preparation.builders import head, movement


@pytest.mark.parametrize("degrees", [0.0, 7.5, 90.0, 180.0])
def test_the_angle_of_a_turn_is_its_own(degrees: float) -> None:
    assert rotation_degrees(movement((0, degrees, 0), (3, 4, 5))) == pytest.approx(
        degrees, abs=1e-5
    )


def test_a_shift_moves_every_point_by_its_length() -> None:
    points = np.array([(0.0, 0, 0), (10, -20, 30)])
    shift = movement((0, 0, 0), (3, 4, 12))
    np.testing.assert_allclose(displacements_mm(shift, np.eye(4), points), 13.0)


def test_a_moved_volume_keeps_its_values_and_changes_their_places() -> None:
    volume = head("t1")
    shift = movement((0, 0, 0), (3, -4, 5))
    there = moved(volume, shift)
    assert there.array is volume.array
    np.testing.assert_allclose(there.affine[:3, 3] - volume.affine[:3, 3], (3, -4, 5))


def test_places_are_those_of_the_voxels_and_at_most_so_many() -> None:
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    mask = np.zeros((4, 4, 4), bool)
    mask[1, 2, 3] = mask[0, 0, 1] = True
    places = voxel_places(mask, Grid((4, 4, 4), affine))
    assert sorted(map(tuple, places)) == [(0, 0, 4), (2, 6, 12)]
    many = voxel_places(np.ones((30, 30, 30), bool), Grid((30, 30, 30), affine), at_most=100)
    assert 100 <= len(many) < 200
