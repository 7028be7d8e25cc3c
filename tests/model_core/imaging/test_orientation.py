from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from model_core.errors import OptionError
from model_core.imaging.grid import Grid
from model_core.imaging.orientation import check_orientation, closest_orientation, turn
from tests.model_core.imaging.builders import BRATS_AFFINE, ORIENTATIONS, oblique_affine


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48
    for axcodes in ORIENTATIONS:
        check_orientation(axcodes)


@pytest.mark.parametrize("wanted", ORIENTATIONS)
def test_every_voxel_keeps_its_value_and_its_place(wanted: str) -> None:
    shape = (3, 4, 5)
    array = np.arange(60).reshape(shape)
    grid = Grid(shape, oblique_affine())
    turned, turned_grid = turn(array, grid.axcodes, wanted), grid.reoriented(wanted)
    assert turned.shape == turned_grid.shape
    places = {int(value): grid.affine @ (*index, 1) for index, value in np.ndenumerate(array)}
    for index, value in np.ndenumerate(turned):
        np.testing.assert_allclose(turned_grid.affine @ (*index, 1), places[int(value)], atol=1e-9)


@pytest.mark.parametrize("wanted", ORIENTATIONS)
def test_a_turned_grid_is_named_as_asked_and_as_nibabel_names_it(wanted: str) -> None:
    for affine in (BRATS_AFFINE, oblique_affine()):
        turned = Grid((3, 4, 5), affine).reoriented(wanted)
        assert turned.axcodes == wanted
        assert "".join(nib.aff2axcodes(turned.affine)) == wanted


def test_turning_there_and_back_is_the_identity() -> None:
    array = np.arange(60).reshape(3, 4, 5)
    for wanted in ORIENTATIONS:
        np.testing.assert_array_equal(turn(turn(array, "LPS", wanted), wanted, "LPS"), array)


def test_leading_axes_stay_in_place() -> None:
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    turned = turn(array, "LPS", "SRA")
    for channel in range(2):
        np.testing.assert_array_equal(turned[channel], turn(array[channel], "LPS", "SRA"))


def test_writing_into_the_turned_view_writes_into_the_array() -> None:
    array = np.zeros((2, 3, 4))
    turn(array, "RAS", "IPL")[0, 0, 0] = 7
    assert array[1, 2, 3] == 7


def test_a_strongly_tilted_grid_uses_each_world_axis_once() -> None:
    affine = np.eye(4)
    affine[:3, :3] = [[0.8, 0.7, 0.1], [0.1, 0.6, 0.7], [-0.6, 0.3, 0.7]]
    assert sorted(map("RLAPSI".index, closest_orientation(affine))) == [0, 2, 4]


@pytest.mark.parametrize("axcodes", ["", "RA", "RASS", "RRS", "RLS", "ras", "XYZ"])
def test_anything_else_is_refused(axcodes: str) -> None:
    with pytest.raises(OptionError, match="orientation"):
        check_orientation(axcodes)
