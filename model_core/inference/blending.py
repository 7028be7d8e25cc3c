"""How much each voxel of a window counts where windows overlap, and the weighted mean they form.

The weights are kept above a floor. Dividing a weighted sum by a *clamped sum of weights* would
darken the borders of the image; clamping the weights themselves keeps the law that a constant
prediction stays the same constant everywhere, corners included.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from model_core.inference.windows import Blend, Window

WEIGHT_FLOOR = 1e-3
"""Smallest weight; a product of three Gaussian tails would otherwise fall to 1e-11."""


def gaussian_weights(
    window: Sequence[int],
    sigma_scale: float = 0.125,
    *,
    device: torch.device | str = "cpu",
) -> Tensor:
    """A Gaussian bump over a window, 1 at its centre, never below `WEIGHT_FLOOR`.

    Args:
        window: voxels along each axis.
        sigma_scale: standard deviation as a fraction of each side (0.125 in nnU-Net and MONAI).
        device: where the weights are wanted.

    Returns:
        float32 tensor of shape `window`, equal to MONAI's importance map in ``gaussian`` mode.
    """
    profiles = [_gaussian_profile(side, sigma_scale * side, device) for side in window]
    bump = reduce(lambda grown, profile: grown.unsqueeze(-1) * profile, profiles)
    return bump.clamp_(min=max(float(bump.min()), WEIGHT_FLOOR))


def blend_weights(blend: Blend, window: Sequence[int], device: torch.device | str) -> Tensor:
    """The weights of `blend` for one window: float32, shape `window`."""
    if blend == "gaussian":
        return gaussian_weights(window, device=device)
    return torch.ones(tuple(window), device=device)


class WeightedMean:
    """A running weighted mean over an image: one buffer of sums, one of weights.

    The result is divided in place, so the peak is (K + 1) float32 values a voxel and nothing more.

    Args:
        channels: K, scores a voxel.
        shape: spatial shape of the image.
        weights: float32 weights of one window, all positive.
    """

    def __init__(self, channels: int, shape: Sequence[int], weights: Tensor) -> None:
        self._weights = weights
        self._sums = torch.zeros((channels, *shape), device=weights.device)
        self._total = torch.zeros(tuple(shape), device=weights.device)

    @property
    def channels(self) -> int:
        """K, scores a voxel."""
        return self._sums.shape[0]

    def add(self, where: Window, scores: Tensor) -> None:
        """Add one window's scores, shape (K, *window); `scores` itself is left as it is."""
        # addcmul needs no temporary for weights × scores.
        self._sums[(slice(None), *where)].addcmul_(scores.detach().float(), self._weights)
        self._total[where].add_(self._weights)

    def result(self) -> Tensor:
        """The mean, shape (K, *shape). Consumes the buffers: call it once, at the end."""
        assert float(self._total.min()) > 0, "a voxel lies in no window"
        return self._sums.div_(self._total)


def _gaussian_profile(side: int, sigma: float, device: torch.device | str) -> Tensor:
    """exp(-x² / 2σ²) at the voxel centres of one axis, x counted from its middle."""
    middle = (side - 1) / 2
    offsets = torch.arange(side, dtype=torch.float32, device=device) - middle
    return torch.exp(-(offsets**2) / (2 * sigma**2))
