from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from model_core.imaging.volume import Volume
from model_core.preparation.itk import from_itk, moving_to_fixed, to_itk
from tests.model_core.imaging.builders import ORIENTATIONS, oblique_affine, random_image

VOLUME = Volume(random_image((7, 9, 5)), oblique_affine())


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "ASR", "IPL", "SAR"])
def test_every_voxel_keeps_its_value_and_its_place(axcodes: str) -> None:
    volume = VOLUME.reoriented(axcodes)
    image = to_itk(volume)
    for index in [(0, 0, 0), (3, 1, 2), tuple(size - 1 for size in volume.shape)]:
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((-x, -y, z, 1), volume.affine @ (*index, 1), atol=1e-9)
        assert image[index] == volume.array[index]


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_there_and_back_is_the_same_volume(axcodes: str) -> None:
    volume = VOLUME.reoriented(axcodes)
    back = from_itk(to_itk(volume))
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.grid.matches(volume.grid, tolerance_mm=1e-9)


def test_a_transform_becomes_the_movement_of_the_moving_image_in_our_world() -> None:
    """ITK maps fixed points (LPS+) to moving ones; ours maps moving points (RAS+) to fixed ones."""
    transform = SimpleITK.Euler3DTransform()
    transform.SetCenter((10.0, -20.0, 30.0))
    transform.SetRotation(0.1, -0.2, 0.3)
    transform.SetTranslation((4.0, 5.0, -6.0))
    matrix = moving_to_fixed(transform)
    for fixed in [(0.0, 0.0, 0.0), (12.0, -7.0, 33.0)]:
        x, y, z = transform.TransformPoint((-fixed[0], -fixed[1], fixed[2]))
        np.testing.assert_allclose(matrix @ (-x, -y, z, 1), (*fixed, 1), atol=1e-9)
