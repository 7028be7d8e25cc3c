"""SegMamba as its authors released it (arXiv 2401.13560), whole before part.

Follows the released code, not the paper where they differ: the gated spatial convolution adds its
branches instead of multiplying, the stem is a dense 7³ convolution, there is no feature-level
uncertainty. Only so do the authors' weights mean here what they meant there.

::

    x ──────────────────────────── skip 0 ─────────────────────────────► up 3 ─► refine ─► head
    └─ stage 0 (1/2) ──────────── skip 1 ───────────────────────► up 2
         └─ stage 1 (1/4) ─────── skip 2 ─────────────────► up 1
              └─ stage 2 (1/8) ── skip 3 ───────────► up 0
                   └─ stage 3 (1/16) ── skip 4 (bottleneck) ┘
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import nn
from torch.nn import functional as F

from model_core.errors import ShapeError
from model_core.networks.blocks import Conv3d, ResidualConvBlock, UpBlock, channels_last
from model_core.networks.mamba import MambaMixer
from model_core.networks.tokens import to_tokens, to_volume
from model_core.ops import SCAN_DIRECTIONS, instance_norm

PUBLISHED_NUM_SLICES: Final = (64, 32, 16, 8)
"""What the released code hard-codes: the slices of a 128³ window at each stage."""


class SegMamba(nn.Module):
    """Volume (B, in, D, H, W) → logits (B, out, D, H, W).

    Args:
        in_channels: input contrasts.
        out_channels: output classes or regions.
        depths: Mamba layers in each of the four stages.
        features: channels of the four stages.
        hidden: channels of the bottleneck.
        num_slices: runs of the inter-slice scan at each stage. None follows each feature map's
            own first axis, which is what the scan means at any window size; the authors' weights
            were trained with `PUBLISHED_NUM_SLICES` whatever the window.
    """

    size_multiple: Final = 16
    spatial_dims: Final = 3

    def __init__(
        self,
        *,
        in_channels: int = 4,
        out_channels: int = 4,
        depths: Sequence[int] = (2, 2, 2, 2),
        features: Sequence[int] = (48, 96, 192, 384),
        hidden: int = 768,
        num_slices: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.hidden = in_channels, out_channels, hidden
        self.depths, self.features = tuple(depths), tuple(features)
        self.num_slices = None if num_slices is None else tuple(num_slices)
        widths = (in_channels, *features)
        self.stages = nn.ModuleList(
            EncoderStage(widths[i], features[i], depths[i], stem=i == 0) for i in range(4)
        )
        self.skips = nn.ModuleList(
            ResidualConvBlock(into, out)
            for into, out in zip(widths, (*features, hidden), strict=True)
        )
        descending = (hidden, *reversed(features))
        self.ups = nn.ModuleList(UpBlock(descending[i], descending[i + 1]) for i in range(4))
        self.refine = ResidualConvBlock(features[0], features[0])
        self.head = Conv3d(features[0], out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute raw logits.

        Raises:
            ShapeError: the channels differ, or a spatial size is not a multiple of 16, or a
                stage's tokens do not divide by its ``num_slices``.
        """
        self._check(x)
        x = channels_last(x)
        skips = [self.skips[0](x)]
        for i, stage in enumerate(self.stages):
            x, features = stage(x, None if self.num_slices is None else self.num_slices[i])
            skips.append(self.skips[i + 1](features))
        x = skips.pop()
        for up in self.ups:
            x = up(x, skips.pop())
        logits: torch.Tensor = self.head(self.refine(x))
        return logits.to(self.head.weight.dtype)  # float32 under autocast too

    def _check(self, x: torch.Tensor) -> None:
        sizes_fit = x.dim() == 5 and all(n and n % self.size_multiple == 0 for n in x.shape[2:])
        if not sizes_fit or x.shape[1] != self.in_channels:
            raise ShapeError(
                f"SegMamba takes (batch, {self.in_channels}, D, H, W) with D, H and W multiples "
                f"of {self.size_multiple}, got {tuple(x.shape)}. Pad the window to the next "
                f"multiple; sliding-window inference does so by itself."
            )


class EncoderStage(nn.Module):
    """Halve the resolution, then gated spatial convolution, then Mamba layers.

    Gives both the running features, which feed the next stage, and their normalised, mixed form,
    which feeds the skip connection.
    """

    def __init__(self, in_channels: int, channels: int, depth: int, *, stem: bool) -> None:
        super().__init__()
        self.stem = stem
        kernel, padding = (7, 3) if stem else (2, 0)
        self.downsample = Conv3d(in_channels, channels, kernel, stride=2, padding=padding)
        self.spatial = GatedSpatialConv(channels)
        self.layers = nn.ModuleList(TriMambaLayer(channels) for _ in range(depth))
        self.mlp1 = Conv3d(channels, 2 * channels, 1)
        self.mlp2 = Conv3d(2 * channels, channels, 1)

    def forward(self, x: torch.Tensor, num_slices: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn (B, in, 2D, 2H, 2W) into running and skip features, both (B, C, D, H, W)."""
        x = self.spatial(self.downsample(x if self.stem else instance_norm(x)))
        for layer in self.layers:
            x = layer(x, num_slices)
        return x, self.mlp2(F.gelu(self.mlp1(instance_norm(x))))


class GatedSpatialConv(nn.Module):
    """SegMamba's GSC: a 3³-3³ branch plus a 1³ branch, fused by a 1³ convolution; residual.

    The released code adds the branches where the paper multiplies them; as published, do not tidy.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv3d(channels, channels, 3, padding=1)
        self.conv2 = Conv3d(channels, channels, 3, padding=1)
        self.conv3 = Conv3d(channels, channels, 1)
        self.fuse = Conv3d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform (B, C, D, H, W), shape unchanged."""
        deep = _normalised(self.conv2(_normalised(self.conv1(x))))
        mixed = _normalised(self.conv3(x), residual=deep)
        return _normalised(self.fuse(mixed), residual=x)


def _normalised(x: torch.Tensor, *, residual: torch.Tensor | None = None) -> torch.Tensor:
    """``residual + relu(norm(x))``, written over ``x``: a convolution's result, used once."""
    return instance_norm(x, 0.0, residual=residual, residual_after=True, inplace=True)


class TriMambaLayer(nn.Module):
    """LayerNorm, tri-orientated Mamba over all voxels as tokens, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mixer = MambaMixer(channels, directions=SCAN_DIRECTIONS)

    def forward(self, x: torch.Tensor, num_slices: int | None) -> torch.Tensor:
        """Mix (B, C, D, H, W); None for ``num_slices`` means D."""
        with torch.autocast(x.device.type, enabled=False):
            tokens = self.norm(to_tokens(x).to(self.norm.weight.dtype))
            mixed: torch.Tensor = self.mixer(tokens, num_slices or x.shape[2])
        return x + to_volume(mixed, x.shape[2:]).to(x.dtype)
