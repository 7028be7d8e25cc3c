"""How much each voxel of a window counts where windows overlap, and the weighted mean they form.

The weights are kept above a floor. Dividing a weighted sum by a *clamped sum of weights* would
darken the borders of the image; clamping the weights themselves keeps the law that a constant
prediction stays the same constant everywhere, corners included.

nnU-Net's Gaussian differs in two points: it stands on voxel n // 2 of a side of n, half a voxel
behind the middle where n is even, and its floor is the smallest number of half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor

from model_core.inference.windows import Blend, Tiling, Window
from model_core.ops.blend import add_weighted

WEIGHT_FLOOR = 1e-3
"""Smallest weight; a product of three Gaussian tails would otherwise fall to 1e-11."""

NNUNET_FLOOR = 2.0**-24 / 10
"""nnU-Net keeps ten times the weights in half precision and lifts what falls to 0 to its least."""


def gaussian_weights(
    window: Sequence[int],
    sigma_scale: float = 0.125,
    *,
    device: torch.device | str = "cpu",
    tiling: Tiling = "monai",
) -> Tensor:
    """A Gaussian bump over a window, 1 at its centre, never below a floor.

    Args:
        window: voxels along each axis.
        sigma_scale: standard deviation as a fraction of each side (0.125 in nnU-Net and MONAI).
        device: where the weights are wanted.
        tiling: whose bump it is.

    Returns:
        float32 tensor of shape `window`: MONAI's importance map in ``gaussian`` mode, its floor
        `WEIGHT_FLOOR`; or nnU-Net's, its floor `NNUNET_FLOOR`.
    """
    theirs = tiling == "nnunet"
    profiles = [
        _gaussian_profile(side, sigma_scale * side, side // 2 if theirs else (side - 1) / 2, device)
        for side in window
    ]
    bump = reduce(lambda grown, profile: grown.unsqueeze(-1) * profile, profiles)
    if theirs:
        return bump.clamp_(min=NNUNET_FLOOR)
    return bump.clamp_(min=max(float(bump.min()), WEIGHT_FLOOR))


def blend_weights(
    blend: Blend, window: Sequence[int], device: torch.device | str, tiling: Tiling = "monai"
) -> Tensor:
    """The weights of `blend` for one window: float32, shape `window`."""
    if blend == "gaussian":
        return gaussian_weights(window, device=device, tiling=tiling)
    return torch.ones(tuple(window), device=device)


def grown_to_hold(sums: Tensor, channels: Sequence[int]) -> Tensor:
    """Region sums (K, X, Y, Z), each at least as high as the regions painted after it.

    Read by the nested rule, these give what painting every region wherever it is found gives.
    """
    grown = sums.clone()
    for inner, outer in pairwise(reversed(channels)):
        torch.maximum(grown[outer], grown[inner], out=grown[outer])
    return grown


class WeightedMean:
    """A running weighted mean over an image: one buffer of sums, and where the windows lay.

    The result is divided in place by the total weights, which are added up only then, so the peak
    is (K + 1) float32 values a voxel and nothing more.

    Args:
        channels: K, scores a voxel.
        shape: spatial shape of the image.
        weights: float32 weights of one window, all positive.
    """

    def __init__(self, channels: int, shape: Sequence[int], weights: Tensor) -> None:
        self._weights = weights
        self._sums = torch.zeros((channels, *shape), device=weights.device)
        self._windows: list[Window] = []

    @property
    def channels(self) -> int:
        """K, scores a voxel."""
        return self._sums.shape[0]

    def add(self, where: Window, scores: Tensor) -> bool:
        """Add one window's scores, shape (K, *window); `scores` itself is left as it is.

        Returns:
            Whether every score was finite; if not, the mean is of no further use.
        """
        self._windows.append(where)
        return add_weighted(self._sums[(slice(None), *where)], scores, self._weights)

    def result(self) -> Tensor:
        """The mean, shape (K, *shape). Consumes the buffers: call it once, at the end."""
        total = torch.zeros(self._sums.shape[1:], device=self._weights.device)
        for where in self._windows:
            total[where].add_(self._weights)
        assert float(total.min()) > 0, "a voxel lies in no window"
        return self._sums.div_(total)


class FinishedSlabs:
    """Weighted sums of the rows that windows still touch; the others are handed out and forgotten.

    A *row* is all voxels with one index along the first axis. Windows must come with their first
    rows in increasing order, as `plan_windows` gives them. Row r lies at r modulo the window's
    depth, so nothing is moved, and the peak is K float32 values for each voxel of a window's depth.

    Args:
        channels: K, scores a voxel.
        shape: spatial shape of the image.
        weights: float32 weights of one window, all positive.
        finished: told ``(first row, sums)`` of rows (K, rows, ...) in order; `sums` is a view that
            is overwritten afterwards.
    """

    def __init__(
        self,
        channels: int,
        shape: Sequence[int],
        weights: Tensor,
        finished: Callable[[int, Tensor], None],
    ) -> None:
        self._weights = weights
        self._finished = finished
        self._rows = shape[0]
        self._sums = torch.zeros(
            (channels, min(weights.shape[0], shape[0]), *shape[1:]), device=weights.device
        )
        self._first = 0

    @property
    def channels(self) -> int:
        """K, scores a voxel."""
        return self._sums.shape[0]

    def add(self, where: Window, scores: Tensor) -> bool:
        """Add one window's scores; see `WeightedMean.add`."""
        rows, *others = where
        self._hand_out(rows.start)
        finite = True
        for at, count, held in self._stretches(rows.start, rows.stop):
            part = slice(at - rows.start, at - rows.start + count)
            sums = self._sums[(slice(None), held, *others)]
            finite &= add_weighted(sums, scores[:, part], self._weights[part])
        return finite

    def close(self) -> None:
        """Hand out the rows that are left."""
        self._hand_out(self._rows)

    def _hand_out(self, stop: int) -> None:
        for at, _, held in self._stretches(self._first, stop):
            sums = self._sums[:, held]
            self._finished(at, sums)
            sums.zero_()
        self._first = max(self._first, stop)

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[int, int, slice]]:
        """Rows [start, stop) as runs that lie together: first row, rows, and where they lie."""
        depth = self._sums.shape[1]
        while start < stop:
            at = start % depth
            count = min(stop - start, depth - at)
            yield start, count, slice(at, at + count)
            start += count


def _gaussian_profile(side: int, sigma: float, middle: float, device: torch.device | str) -> Tensor:
    """exp(-x² / 2σ²) at the voxel centres of one axis, x counted from `middle`."""
    offsets = torch.arange(side, dtype=torch.float32, device=device) - middle
    return torch.exp(-(offsets**2) / (2 * sigma**2))
