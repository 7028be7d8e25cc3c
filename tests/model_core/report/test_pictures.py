"""Pictures show the right place the right way round, at the right size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from model_core.findings import measure
from model_core.imaging.volume import Volume
from model_core.labels import LABEL_COLOURS
from model_core.report.cuts import PLANES, SIDE, Plane, View, head_of, letter, mask_panel, slice_of
from model_core.report.paint import LEVELS, outline, png, tint
from model_core.report.pictures import COLOURS, lesion_pictures
from model_core.types import Label
from tests.model_core.report.studies import CENTRE_MM, ball, opened, t1ce, tumour

AXIAL, CORONAL, SAGITTAL = PLANES


def sheet_of(image: Volume, labels: Volume) -> Image.Image:
    (picture,) = lesion_pictures({"t1ce": image}, labels, measure(labels.array, labels.grid))
    found = opened(picture.source)
    assert found.size == (picture.width, picture.height)
    return found


def test_a_picture_does_not_depend_on_the_order_of_the_voxels() -> None:
    image = t1ce()
    labels = tumour(image.grid, 20.0)
    seen = np.asarray(sheet_of(image, labels))
    for axcodes in ("RAS", "SPL", "AIR"):
        turned = sheet_of(image.reoriented(axcodes), labels.reoriented(axcodes))
        np.testing.assert_array_equal(np.asarray(turned), seen)


@pytest.mark.parametrize(
    ("moved", "plane", "direction"),
    [
        ((40, 0, 0), AXIAL, (0, -1)), ((-40, 0, 0), CORONAL, (0, 1)),
        ((0, 40, 0), AXIAL, (-1, 0)), ((0, -40, 0), SAGITTAL, (0, 1)),
        ((0, 0, 40), CORONAL, (-1, 0)), ((0, 0, -40), SAGITTAL, (1, 0)),
    ],
)  # fmt: skip
def test_the_patients_right_is_left_and_front_and_top_are_up(
    moved: tuple[int, int, int], plane: Plane, direction: tuple[int, int]
) -> None:
    """A ball moved along R, A or S goes where the letters say."""
    image = t1ce()
    place = ball(image.grid, moved, 12.0)
    head = head_of({"t1ce": image}, Volume(place.astype(np.uint8), image.affine))
    view = View(tuple(size // 2 for size in head.labels.shape), 170.0)
    part = slice_of(head.labels, plane, view.centre) > 0
    shown = mask_panel(part, view.box(plane, head.spacing_mm))
    rows, columns = np.nonzero(shown)
    off = np.array([rows.mean(), columns.mean()]) - SIDE / 2
    expected = np.array(direction) * 40 / 170 * SIDE
    np.testing.assert_allclose(off, expected, atol=3.5 / 170 * SIDE)


def test_a_panel_has_the_scale_that_its_bar_says() -> None:
    """A ball of a known radius covers its area, and the bar has its length."""
    image = t1ce()
    labels = tumour(image.grid, 20.0)
    head = head_of({"t1ce": image}, labels)
    index = np.linalg.solve(image.grid.reoriented("LPI").affine, [*CENTRE_MM, 1.0])[:3]
    view = View(tuple(np.rint(index).astype(int)), 100.0)
    for plane in PLANES:
        part = slice_of(head.labels, plane, view.centre) > 0
        shown = mask_panel(part, view.box(plane, head.spacing_mm))
        area_mm2 = shown.sum() * (view.width_mm / SIDE) ** 2
        assert area_mm2 == pytest.approx(np.pi * 20.0**2, rel=0.06)
    panel = np.zeros((SIDE, SIDE), np.uint8)
    letter(panel, AXIAL, "", view)
    longest = max(np.count_nonzero(panel == LEVELS - 1, axis=1))
    assert longest == round(20 / view.width_mm * SIDE)


def test_an_outline_is_the_rim_of_its_area_and_a_tint_keeps_the_grey() -> None:
    panel = np.full((9, 9), 30, np.uint8)
    where = np.zeros((9, 9), bool)
    where[2:7, 2:7] = True
    outline(panel, where, 2)
    rim = where.copy()
    rim[3:6, 3:6] = False
    np.testing.assert_array_equal(panel == 4 * LEVELS + 1, rim)
    assert (panel[3:6, 3:6] == 30).all()
    assert (panel[1, 2:7] == 10).all()
    tint(panel, panel == 30, 3)
    assert (panel[3:6, 3:6] == 3 * LEVELS + 30).all()


def test_the_labels_have_their_colours_and_the_file_says_nothing_else() -> None:
    image = t1ce()
    found = sheet_of(image, tumour(image.grid, 20.0))
    used = {tuple(colour) for colour in np.asarray(found.convert("RGB")).reshape(-1, 3).tolist()}
    assert LABEL_COLOURS[Label.ED] in used
    assert LABEL_COLOURS[Label.ET] in used
    assert LABEL_COLOURS[Label.NCR] not in used
    assert not found.info.keys() - {"transparency"}
    assert png(np.zeros((4, 4), np.uint8), COLOURS).count(b"tEXt") == 0
