"""Pictures of the body are radiological from any orientation."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest

from training.runs.view import PLAIN, axial_view, bounding_box, fullest_slice, view_across

CODES = [
    "".join(signs)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for signs in itertools.product(*order)
]


def body(orientation: str) -> np.ndarray:
    """(X, Y, Z) whose voxels are numbered from right to left, front to back, head to foot."""
    # RAS axes run to the right, front, head: the numbering's axes are turned against them
    in_lpi = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    start = nib.orientations.axcodes2ornt(("L", "P", "I"))
    end = nib.orientations.axcodes2ornt(tuple(orientation))
    turn = nib.orientations.ornt_transform(start, end)
    return nib.orientations.apply_orientation(in_lpi, turn)


@pytest.mark.parametrize("orientation", CODES)
def test_axial_slices_have_right_on_the_left_and_the_front_above(orientation: str) -> None:
    view, volume = axial_view(orientation), body(orientation)
    index = orientation.index("I") if "I" in orientation else orientation.index("S")
    assert view.axis == index
    top = 0 if "I" in orientation else volume.shape[view.axis] - 1
    section = view.cut(volume, top)
    # rows: front to back (step 5 in the numbering); columns: right to left (step 20)
    expected = np.arange(4)[:, None] * 5 + np.arange(3)[None, :] * 20
    np.testing.assert_array_equal(section, expected)


@pytest.mark.parametrize("orientation", ["RAS", "SPL", "LPI", "PIR"])
def test_coronal_and_sagittal_slices_have_the_head_above(orientation: str) -> None:
    volume = body(orientation)
    front = next(a for a, code in enumerate(orientation) if code in "AP")
    coronal = view_across(front, orientation)
    section = coronal.cut(volume, 0)
    assert np.all(np.diff(section, axis=0) == 1), "rows: head to foot"
    assert np.all(np.diff(section, axis=1) == 20), "columns: right to left"
    side = next(a for a, code in enumerate(orientation) if code in "RL")
    section = view_across(side, orientation).cut(volume, 0)
    assert np.all(np.diff(section, axis=0) == 1)
    assert np.all(np.diff(section, axis=1) == 5), "columns: front to back"
    assert coronal.left == axial_view(orientation).left == "the patient's right"
    assert view_across(side, orientation).left == "the patient's front"


def test_a_photograph_stays_as_it_is() -> None:
    picture = np.arange(6).reshape(1, 2, 3)
    np.testing.assert_array_equal(PLAIN.cut(picture, 0), picture[0])
    assert not PLAIN.left


def test_the_fullest_slice() -> None:
    mask = np.zeros((4, 5, 6), bool)
    assert fullest_slice(mask, 2) == 3
    mask[0, 0, 1] = mask[:2, 0, 4] = True
    assert fullest_slice(mask, 2) == 4


def test_the_box_has_a_margin_and_ends_at_the_edge() -> None:
    mask = np.zeros((20, 30), bool)
    assert bounding_box(mask) == (slice(None), slice(None))
    mask[10, 2] = mask[12, 8] = True
    rows, columns = bounding_box(mask, margin=4)
    assert np.zeros((20, 30))[rows, columns].shape == (11, 13)
    assert (rows.start, columns.start) == (6, 0)
