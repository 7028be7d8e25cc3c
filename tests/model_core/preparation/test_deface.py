from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from model_core.imaging.grid import Grid
from model_core.imaging.volume import Volume
from model_core.preparation.deface import (
    MARGIN_MM,
    USUAL_SLOPE_DEG,
    FacePlane,
    face_plane,
    touches_border,
)
from tests.dicom_series import GEOMETRIES, geometry_affine
from tests.face_heads import (
    BRAIN,
    CHIN_MM,
    EYES_MM,
    FOREHEAD_MM,
    NECK_MM,
    NOSE_MM,
    OCCIPUT_MM,
    head_labels,
    nodded,
    points_of,
)

SHAPE = (60, 66, 64)
SPACING = (4.0, 3.6, 4.0)
FACE = (*EYES_MM, NOSE_MM, CHIN_MM)


def grid(name: str = "axial", *, oblique: bool = False) -> Grid:
    return Grid(SHAPE, geometry_affine(name, shape=SHAPE, spacing=SPACING, oblique=oblique))


def brain(on: Grid, nod_deg: float = 0.0) -> NDArray[np.bool_]:
    return head_labels(on, nod_deg=nod_deg) == BRAIN


def slope_of(plane: FacePlane) -> float:
    return float(np.degrees(np.arctan2(plane.normal[1], -plane.normal[2])))


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_face_lies_on_its_side_however_the_head_was_scanned(name: str, oblique: bool) -> None:
    plane = face_plane(brain(grid(name, oblique=oblique)), grid(name, oblique=oblique))
    assert plane(np.array(FACE)).all()
    assert not plane(np.array([FOREHEAD_MM, OCCIPUT_MM])).any()
    assert plane.normal[0] == 0
    assert plane.normal[1] > 0 > plane.normal[2]
    assert np.linalg.norm(plane.normal) == pytest.approx(1)


@pytest.mark.parametrize("margin_mm", [0.0, MARGIN_MM, 12.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_voxel_of_any_brain_comes_nearer_than_the_margin(seed: int, margin_mm: float) -> None:
    """Not of a head either: a law of the hull, whatever the mask looks like."""
    random = np.random.default_rng(seed)
    mask = random.random((12, 14, 9)) < 0.05
    axes = np.linalg.qr(random.normal(size=(3, 3)))[0] * (1.5, 2.0, 6.0)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, (40, -30, 20)
    plane = face_plane(mask, Grid((12, 14, 9), affine), margin_mm=margin_mm)
    ends = np.argwhere(mask)[:, None] + np.array(list(product((-0.5, 0.5), repeat=3)))
    nearest = plane.distance_mm(ends @ axes.T + affine[:3, 3]).max()
    assert nearest == pytest.approx(-margin_mm, abs=1e-9)


@pytest.mark.parametrize("nod_deg", [-20.0, -10.0, 10.0, 20.0])
def test_the_plane_nods_with_the_head(nod_deg: float) -> None:
    plane, straight = (face_plane(brain(grid(), nod), grid()) for nod in (nod_deg, 0.0))
    assert plane(nodded(np.array(FACE), nod_deg)).all()
    assert not plane(nodded(np.array([FOREHEAD_MM, OCCIPUT_MM]), nod_deg)).any()
    assert (slope_of(plane) > slope_of(straight)) == (nod_deg > 0)


def test_thick_slices_are_enough() -> None:
    shape = (60, 66, 42)
    thick = Grid(shape, geometry_affine(shape=shape, spacing=(4.0, 3.6, 6.0)))
    assert face_plane(brain(thick), thick)(np.array(FACE)).all()


def test_the_neck_below_goes_with_the_face() -> None:
    assert face_plane(brain(grid()), grid())(np.array(NECK_MM))


def test_a_slab_above_the_orbits_gets_the_usual_slope() -> None:
    mask = brain(grid())
    top = np.zeros_like(mask)
    heights = points_of(grid())[..., 2]
    top[heights > 40] = mask[heights > 40]
    assert slope_of(face_plane(top, grid())) == pytest.approx(USUAL_SLOPE_DEG)


def test_a_brain_in_the_outermost_voxels_may_go_on_beyond_them() -> None:
    mask = np.zeros((5, 6, 7), np.bool_)
    mask[1:-1, 1:-1, 1:-1] = True
    assert not touches_border(mask)
    for index in ((0, 3, 3), (-1, 3, 3), (2, 0, 3), (2, -1, 3), (2, 3, 0), (2, 3, -1)):
        touching = mask.copy()
        touching[index] = True
        assert touches_border(touching)


def test_a_plane_is_the_same_in_every_orientation_of_one_array() -> None:
    whole = Volume(brain(grid()).astype(np.uint8), grid().affine)
    first = face_plane(whole.array > 0, whole.grid)
    for axcodes in ("RAS", "PIR", "SLA"):
        turned = whole.reoriented(axcodes)
        plane = face_plane(turned.array > 0, turned.grid)
        assert plane.offset_mm == pytest.approx(first.offset_mm)
        assert plane.normal == pytest.approx(first.normal)
