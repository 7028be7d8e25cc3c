"""Random changes of a patch: affine, flips, and intensities drawn anew for each contrast.

Spatial sampling and intensity transforms are MONAI's. What is drawn is decided first (`draw`), so
that a larger region is read from disk only when a rotation or a shrinking will need its corners.
Background voxels keep their value: intensity changes happen inside the brain.

Shapes: image (C, X, Y, Z) float32, labels (X, Y, Z) uint8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.intensity.array import (
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensity,
    RandShiftIntensity,
)
from monai.transforms.spatial.array import Affine, RandSimulateLowResolution
from torch import Tensor

from model_core.types import Shape3
from training.config import Augmentation


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will happen to one patch."""

    rotation: tuple[float, float, float] | None
    """Radians about the three axes; ``None``: no affine change."""
    zoom: float
    """Above 1 enlarges the anatomy."""
    flips: tuple[int, ...]
    """Axes of the patch (0, 1, 2) that are mirrored."""
    intensity_seed: int


class Augment:
    """Draws and applies plans for patches of one size."""

    def __init__(self, settings: Augmentation, patch: Shape3) -> None:
        self.settings = settings
        self.patch = patch
        self._intensity = _intensity_transforms(settings)

    def draw(self, rng: np.random.Generator) -> Plan:
        """Decide everything about one patch."""
        limit = math.radians(self.settings.rotation_degrees)
        low, high = (math.log(bound) for bound in self.settings.scale)
        affine = rng.random() < self.settings.affine
        x, y, z = rng.uniform(-limit, limit, size=3)
        zoom = math.exp(rng.uniform(low, high))
        flips = tuple(axis for axis in range(3) if rng.random() < self.settings.flip)
        return Plan(
            rotation=(x, y, z) if affine else None,
            zoom=zoom if affine else 1.0,
            flips=flips,
            intensity_seed=int(rng.integers(2**32)),
        )

    def source_region(self, plan: Plan, start: Shape3) -> tuple[Shape3, Shape3]:
        """Size and lower corner of the region to read so that the affine patch has no holes."""
        if plan.rotation is None:
            return self.patch, start
        sines = [abs(math.sin(angle)) for angle in plan.rotation]
        grow = (1 + max(sines) + min(sines)) / plan.zoom
        margins = [max(0, math.ceil(n * (grow - 1) / 2)) for n in self.patch]
        x, y, z = (n + 2 * m for n, m in zip(self.patch, margins, strict=True))
        i, j, k = (s - m for s, m in zip(start, margins, strict=True))
        return (x, y, z), (i, j, k)

    def apply(
        self, plan: Plan, image: Tensor, labels: Tensor, *, background: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """Carry out `plan` on a region of `source_region`'s size; gives patch-sized tensors."""
        if plan.rotation is not None:
            image, labels = self._move(plan, image, labels, background)
        axes = plan.flips
        image = torch.flip(image, [axis + 1 for axis in axes])
        labels = torch.flip(labels, list(axes))
        return self._recolour(plan, image, background), labels.contiguous()

    def _move(
        self, plan: Plan, image: Tensor, labels: Tensor, background: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        affine = Affine(
            rotate_params=plan.rotation,
            scale_params=(1 / plan.zoom,) * 3,
            spatial_size=self.patch,
            padding_mode="zeros",
            image_only=True,
        )
        level = torch.tensor(background)[:, None, None, None]
        moved = _plain(affine(image - level, mode="bilinear")) + level
        moved_labels = _plain(affine(labels[None].float(), mode="nearest"))[0]
        return moved, moved_labels.to(torch.uint8)

    def _recolour(self, plan: Plan, image: Tensor, background: Sequence[float]) -> Tensor:
        """Change each contrast on its own and put the background back."""
        if self._intensity is None:
            return image.contiguous()
        self._intensity.set_random_state(seed=plan.intensity_seed)
        level = torch.tensor(background)[:, None, None, None]
        changed = [_plain(self._intensity(channel[None])) for channel in image]
        return torch.where(image == level, level, torch.cat(changed)).contiguous()


def _plain(values: object) -> Tensor:
    """Without MONAI's metadata, which would follow the tensor into the network."""
    return values.as_tensor() if isinstance(values, MetaTensor) else torch.as_tensor(values)


def _intensity_transforms(settings: Augmentation) -> Compose | None:
    """Transforms of one contrast (1, X, Y, Z); ``None`` when every probability is zero."""
    often = settings.intensity
    if max(often, settings.noise, settings.blur, settings.low_resolution) == 0:
        return None
    sigma = (0.3, 1.0)
    return Compose(
        [
            RandSimulateLowResolution(prob=settings.low_resolution, zoom_range=(0.5, 1.0)),
            RandGaussianSmooth(prob=settings.blur, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma),
            RandGaussianNoise(prob=settings.noise, std=0.15),
            RandAdjustContrast(prob=often, gamma=(0.7, 1.5), retain_stats=True),
            RandScaleIntensity(factors=0.2, prob=often),
            RandShiftIntensity(offsets=0.2, prob=often),
        ],
        map_items=False,
    )
