from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from model_core.errors import ImageError, OptionError
from model_core.imaging.volume import NiftiFrame, Volume
from tests.model_core.imaging.builders import ORIENTATIONS, oblique_affine, random_image


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 3)),
        np.zeros((3, 3, 3, 1)),
        np.zeros((3, 0, 3)),
        np.zeros((3, 3, 3), complex),
        np.full((3, 3, 3), "x"),
        np.where(np.arange(27).reshape(3, 3, 3) == 13, np.nan, 0),
        np.where(np.arange(27).reshape(3, 3, 3) == 13, -np.inf, 0),
    ],
)
def test_an_array_that_is_no_finite_volume_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match="array: expected one 3-D volume"):
        Volume(array, np.eye(4))


def test_a_singular_affine_is_refused() -> None:
    with pytest.raises(ImageError, match="affine"):
        Volume(np.zeros((3, 3, 3)), np.zeros((4, 4)))


@pytest.mark.parametrize("wanted", ORIENTATIONS)
def test_reorienting_agrees_with_nibabel(wanted: str) -> None:
    image = nib.Nifti1Image(random_image((3, 4, 5)), oblique_affine())
    ours = Volume(random_image((3, 4, 5)), oblique_affine()).reoriented(wanted)
    current = nib.io_orientation(image.affine)
    target = nib.orientations.axcodes2ornt(wanted)
    theirs = image.as_reoriented(nib.orientations.ornt_transform(current, target))
    np.testing.assert_array_equal(ours.array, theirs.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-9)


def test_reorienting_keeps_codes_and_drops_numbers_that_are_no_longer_true() -> None:
    frame = NiftiFrame(sform_code=2, qform_code=0, srow=tuple(range(12)), xyzt_units=10)
    turned = Volume(random_image(), oblique_affine(), frame).reoriented("SPL").header
    assert turned == NiftiFrame(sform_code=2, qform_code=0, srow=None, xyzt_units=10)


def test_the_same_orientation_gives_the_same_volume() -> None:
    volume = Volume(random_image(), oblique_affine())
    assert volume.reoriented(volume.axcodes) is volume


def test_an_unknown_orientation_is_refused() -> None:
    with pytest.raises(OptionError, match="orientation"):
        Volume(random_image(), np.eye(4)).reoriented("RAX")
