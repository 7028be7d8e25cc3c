"""Random changes of a patch: affine, flips, a lost contrast, intensities anew for each contrast.

Spatial sampling and intensity transforms are MONAI's. What is drawn is decided first (`draw`), so
that a larger region is read from disk only when a rotation or a shrinking will need its corners.
Background voxels keep their value: intensity changes happen inside the brain.

Shapes: image (C, X, Y, Z) float32, labels (X, Y, Z) uint8. A patch one voxel deep along X is a
slice of a 2-D task: it is turned, mirrored and blurred in its plane only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
    RandScaleIntensityFixedMean,
    RandShiftIntensity,
)
from monai.transforms.spatial.array import Affine, RandSimulateLowResolution
from monai.transforms.utils import create_rotate
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
    dropped: int | None = None
    """The channel that is set to its background."""


class Augment:
    """Draws and applies plans for patches of one size."""

    def __init__(self, settings: Augmentation, patch: Shape3, *, channels: int = 4) -> None:
        self.settings = settings
        self.patch = patch
        self.channels = channels
        self.flat = patch[0] == 1
        self._intensity = _intensity_transforms(settings, flat=self.flat)

    def draw(self, rng: np.random.Generator) -> Plan:
        """Decide everything about one patch."""
        limit = math.radians(self.settings.rotation_degrees)
        low, high = (math.log(bound) for bound in self.settings.scale)
        affine = rng.random() < self.settings.affine
        x, y, z = rng.uniform(-limit, limit, size=3)
        zoom = math.exp(rng.uniform(low, high))
        flips = tuple(axis for axis in range(3) if rng.random() < self.settings.flip)
        rotation = (x, 0.0, 0.0) if self.flat else (x, y, z)
        return Plan(
            rotation=rotation if affine else None,
            zoom=zoom if affine else 1.0,
            flips=tuple(axis for axis in flips if axis or not self.flat),
            intensity_seed=int(rng.integers(2**32)),
            dropped=self._draw_dropped(rng),
        )

    def _draw_dropped(self, rng: np.random.Generator) -> int | None:
        """Nothing is drawn where it cannot happen: plans stay what they were without it."""
        if self.settings.drop_channel == 0 or self.channels == 1:
            return None
        dropped = rng.random() < self.settings.drop_channel
        channel = int(rng.integers(self.channels))
        return channel if dropped else None

    def source_region(self, plan: Plan, start: Shape3) -> tuple[Shape3, Shape3]:
        """Size and lower corner of the region to read so that the affine patch has no holes."""
        if plan.rotation is None:
            return self.patch, start
        turn = np.abs(create_rotate(3, plan.rotation)[:3, :3])
        turn = np.maximum(turn, turn.T)  # whichever way round the rotation is applied
        reach = turn @ np.array(self.patch) / plan.zoom
        sides = zip(reach, self.patch, strict=True)
        margins = [max(0, math.ceil((far - n) / 2 - 1e-6)) for far, n in sides]
        if self.flat:
            margins[0] = 0
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
        image = self._recolour(plan, image, background)
        if plan.dropped is not None:
            image[plan.dropped] = background[plan.dropped]
        return image, labels.contiguous()

    def _move(
        self, plan: Plan, image: Tensor, labels: Tensor, background: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        assert plan.rotation is not None
        affine = Affine(
            rotate_params=plan.rotation[0] if self.flat else plan.rotation,
            scale_params=(1 / plan.zoom,) * (2 if self.flat else 3),
            spatial_size=self.patch[1:] if self.flat else self.patch,
            padding_mode="zeros",
            image_only=True,
        )
        level = torch.tensor(background)[:, None, None, None]
        shifted, classes = image - level, labels[None].float()
        if self.flat:
            shifted, classes = shifted.squeeze(1), classes.squeeze(1)
        moved = _plain(affine(shifted, mode="bilinear"))
        moved_labels = _plain(affine(classes, mode="nearest"))
        if self.flat:
            moved, moved_labels = moved.unsqueeze(1), moved_labels.unsqueeze(1)
        return moved + level, moved_labels[0].to(torch.uint8)

    def _recolour(self, plan: Plan, image: Tensor, background: Sequence[float]) -> Tensor:
        """Change each contrast on its own and put the background back."""
        if self._intensity is None:
            return image.contiguous()
        self._intensity.set_random_state(seed=plan.intensity_seed)
        level = torch.tensor(background)[:, None, None, None]
        # (1, X, Y, Z) a channel, or (1, Y, Z): filters then stay in the plane
        channels = [channel if self.flat else channel[None] for channel in image]
        changed = torch.cat([_plain(self._intensity(channel)) for channel in channels])
        return torch.where(image == level, level, changed.reshape(image.shape)).contiguous()


def _plain(values: object) -> Tensor:
    """Without MONAI's metadata, which would follow the tensor into the network."""
    return values.as_tensor() if isinstance(values, MetaTensor) else torch.as_tensor(values)


def _intensity_transforms(settings: Augmentation, *, flat: bool) -> Compose | None:
    """Transforms of one contrast (1, X, Y, Z), or `flat` (1, Y, Z); ``None`` where all are off."""
    often = settings.intensity
    rates = (often, settings.contrast, settings.inverted_gamma, settings.noise, settings.blur)
    if max(*rates, settings.low_resolution) == 0:
        return None
    sigma = (0.3, 1.0)
    transforms: list[Callable[..., object]] = [
        RandSimulateLowResolution(
            prob=settings.low_resolution,
            zoom_range=(0.5, 1.0),
            upsample_mode="bilinear" if flat else "trilinear",
        ),
        RandGaussianSmooth(prob=settings.blur, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma),
        RandGaussianNoise(prob=settings.noise, std=0.15),
        RandAdjustContrast(prob=often, gamma=(0.7, 1.5), retain_stats=True),
        RandScaleIntensity(factors=0.2, prob=often),
        RandShiftIntensity(offsets=0.2, prob=often),
    ]
    # Where they are off they are left out: each one seeds the next, so a run stays what it was.
    if settings.contrast:
        transforms.append(
            RandScaleIntensityFixedMean(prob=settings.contrast, factors=0.25, preserve_range=True)
        )
    if settings.inverted_gamma:
        transforms.append(
            RandAdjustContrast(
                prob=settings.inverted_gamma, gamma=(0.7, 1.5), invert_image=True, retain_stats=True
            )
        )
    return Compose(transforms, map_items=False)
