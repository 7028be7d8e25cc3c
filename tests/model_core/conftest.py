"""A phantom of a brain as large as a real one, coarse enough for a fast test."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from model_core.imaging.volume import Volume
from model_core.phantom import make_phantom
from model_core.types import CONTRASTS, Contrast

SHAPE = (60, 64, 40)
VOXEL_MM = 4.0


@pytest.fixture(scope="session")
def brain() -> Mapping[Contrast, Volume]:
    """Four contrasts of a stripped brain of about 1.4 litres, with an enhancing tumour."""
    images = make_phantom(1, shape=SHAPE).images
    scaled = {}
    for contrast in CONTRASTS:
        affine = images[contrast].affine.copy()
        affine[:3] *= VOXEL_MM  # a small phantom is the same head, smaller
        scaled[contrast] = Volume(images[contrast].array, affine)
    return scaled
