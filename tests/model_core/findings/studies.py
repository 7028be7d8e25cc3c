"""A head in code, large enough to look like one: a brain of 1.4 litres with a tumour in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_core.imaging.study import Study
from model_core.imaging.volume import Volume
from model_core.types import CONTRASTS, Contrast

SHAPE = (48, 54, 48)
AFFINE = np.diag([-3.0, -3.0, 3.0, 1.0])
"""3 mm voxels, LPS."""
_LEVELS = {"t1": 400.0, "t1ce": 450.0, "t2": 300.0, "flair": 350.0}


def distance(centre: tuple[float, float, float]) -> NDArray[np.float64]:
    """From a voxel, in voxels."""
    offsets = np.indices(SHAPE) - np.reshape(centre, (3, 1, 1, 1))
    return np.sqrt(np.square(offsets).sum(axis=0))


BRAIN = distance((23.5, 26.5, 23.5)) < 23.2


def images(seed: int = 0) -> dict[Contrast, NDArray[np.float32]]:
    """Four smooth, different images of the brain, 0 outside."""
    rng = np.random.default_rng(seed)
    found = {}
    for contrast in CONTRASTS:
        texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2)
        found[contrast] = np.where(BRAIN, _LEVELS[contrast] + 600 * texture, 0).astype(np.float32)
        found[contrast][BRAIN & (found[contrast] <= 0)] = 1
    return found


def study(arrays: dict[Contrast, NDArray[np.float32]] | None = None) -> Study:
    """Four images as a study."""
    volumes = {name: Volume(array, AFFINE) for name, array in (arrays or images()).items()}
    return Study(volumes, "t1", volumes["t1"])


def tumour() -> NDArray[np.uint8]:
    """Necrosis in a rim in oedema, well inside the brain: about 6 % of it."""
    labels = np.zeros(SHAPE, np.uint8)
    apart = distance((19.0, 26.0, 25.0))
    for radius, label in ((9.0, 2), (5.0, 3), (3.0, 1)):
        labels[apart < radius] = label
    return labels
