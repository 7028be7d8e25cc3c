"""What scanners and pipelines do to an image: partial volume, thick slices, noise, blur."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.types import CONTRASTS, Contrast
from training.synthesis import fields
from training.synthesis.appearance import with_bias

THICK_SHARE: dict[Contrast, float] = {"t1": 0.35, "t1ce": 0.2, "t2": 0.5, "flair": 0.5}
"""How often a contrast is a stack of thick slices; contrast-enhanced T1 is mostly a volume scan."""
BAD_SHARE = 0.04
"""How often one contrast of a study is blurred by motion."""


def acquire(
    rng: np.random.Generator, images: dict[Contrast, Tensor], brain: Tensor
) -> dict[Contrast, Tensor]:
    """Images as a scanner and a skull-stripping pipeline would hand them over.

    Args:
        rng: decides everything.
        images: sharp images (X, Y, Z).
        brain: bool (X, Y, Z); everything else becomes 0.

    Returns:
        New images, positive inside the brain.
    """
    moved = CONTRASTS[rng.integers(4)] if rng.random() < BAD_SHARE else None
    acquired = {}
    for contrast, image in images.items():
        scanned = _scan(rng, with_bias(rng, image), contrast)
        if contrast == moved:
            scanned = fields.blur(scanned, (2.5, 2.5, 2.5))
        level = 100 * (scanned + 5).clamp_min(0.05)
        acquired[contrast] = torch.where(brain, level, torch.zeros(()))
    return acquired


def _scan(rng: np.random.Generator, image: Tensor, contrast: Contrast) -> Tensor:
    x, y, z = image.shape
    image = fields.blur(image, (rng.uniform(0.35, 0.75),) * 3)
    image = image + rng.uniform(0.02, 0.15) * fields.noise(rng, (x, y, z))
    if rng.random() < THICK_SHARE[contrast]:
        image = thick_slices(image, axis=int(rng.integers(3)), thickness=rng.uniform(2.0, 5.5))
    # registration to the atlas interpolates once
    return fields.blur(image, (rng.uniform(0.2, 0.5),) * 3)


def thick_slices(image: Tensor, *, axis: int, thickness: float) -> Tensor:
    """The image averaged over slices of `thickness` voxels along an axis, and interpolated back."""
    sigma = [0.0, 0.0, 0.0]
    sigma[axis] = thickness / 2.355
    smooth = fields.blur(image, (sigma[0], sigma[1], sigma[2]))[None, None]
    size = list(image.shape)
    size[axis] = max(2, round(size[axis] / thickness))
    coarse = F.interpolate(smooth, size=size, mode="trilinear", align_corners=True)
    fine = F.interpolate(coarse, size=image.shape, mode="trilinear", align_corners=True)
    return fine[0, 0]
