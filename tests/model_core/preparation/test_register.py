from __future__ import annotations

import numpy as np
import pytest

from model_core.errors import Cancelled
from model_core.imaging.volume import Volume
from model_core.preparation.register import LEVELS, NotFound, register
from model_core.preparation.rigid import Matrix, displacements_mm, moved, voxel_places
from model_core.types import Contrast
from tests.model_core.preparation.builders import (
    SPACING_MM,
    acquired,
    head,
    head_affine,
    movement,
    thick,
    tissues,
)


def error_mm(found: Matrix, truth: Matrix) -> float:
    """How far the registration leaves the brain from where it belongs, on average."""
    grid = Volume(tissues(), head_affine()).grid
    places = voxel_places(tissues() >= 3, grid)
    there = places @ truth[:3, :3].T + truth[:3, 3]
    return float(displacements_mm(found, np.linalg.inv(truth), there).mean())


def test_a_shift_of_whole_voxels_is_recovered() -> None:
    shift = movement((0, 0, 0), (-2 * SPACING_MM, SPACING_MM, 3 * SPACING_MM))
    found = register(head("t1ce"), moved(head("t1"), shift))
    assert error_mm(found.matrix, shift) < 0.3


@pytest.mark.parametrize(
    "contrast",
    [
        pytest.param("t1", marks=pytest.mark.slow),
        "t2",
        pytest.param("flair", marks=pytest.mark.slow),
    ],
)
def test_a_large_movement_is_recovered_across_contrasts(contrast: Contrast) -> None:
    truth = movement((12, -8, 14), (15, -12, 18))
    found = register(head("t1ce"), acquired(head(contrast), truth), levels=LEVELS)
    assert error_mm(found.matrix, truth) < 0.6


def test_thick_slices_and_a_part_of_the_head_are_enough() -> None:
    truth = movement((6, 4, -5), (4, -3, 5))
    whole = head("flair")
    slab = whole.grid.cropped((0, 0, 9), (54, 62, 26))
    found = register(head("t1ce"), acquired(whole, truth, thick(slab, 2, 5.5)))
    assert error_mm(found.matrix, truth) < 1.0


def test_lost_headers_do_not_matter() -> None:
    """Half a metre away by its header: the heads are found on each other."""
    away = movement((3, -4, 5), (500, -400, 300))
    found = register(head("t1ce"), moved(head("t2"), away))
    assert error_mm(found.matrix, away) < 0.6
    assert found.start != "headers"


@pytest.mark.slow
def test_any_axis_order_gives_the_same_place() -> None:
    truth = movement((5, 6, -4), (6, -5, 4))
    moving = acquired(head("t2"), truth)
    places = [
        register(head("t1ce").reoriented(fixed), moving.reoriented(other)).matrix
        for fixed, other in (("LPS", "LPS"), ("RAS", "SAR"))
    ]
    assert error_mm(places[0], truth) < 0.6
    assert error_mm(places[0], np.linalg.inv(places[1])) < 0.2


def test_the_same_images_give_the_same_numbers() -> None:
    moving = acquired(head("t2"), movement((3, 2, 1), (1, 2, 3)))
    first, second = (register(head("t1ce"), moving).matrix for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_there_and_back_is_where_one_was() -> None:
    here, there = head("t1ce"), acquired(head("flair"), movement((5, -6, 4), (7, 3, -5)))
    forth, back = register(here, there).matrix, register(there, here).matrix
    assert error_mm(back @ forth, np.eye(4)) < 0.5


def test_a_registration_stops_when_asked() -> None:
    asked = iter([False, False, True] + [True] * 1000)
    with pytest.raises(Cancelled):
        register(head("t1ce"), head("t2"), stop=lambda: next(asked))


def test_an_image_of_nothing_leads_nowhere_but_not_astray() -> None:
    flat = Volume(np.zeros((20, 20, 20), np.float32), head_affine((20, 20, 20)))
    try:
        found = register(head("t1ce"), flat)
    except NotFound:
        return
    np.testing.assert_allclose(found.matrix, np.eye(4), atol=1e-6)
