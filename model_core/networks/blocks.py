"""Convolutional blocks of SegMamba: normalised, residual, upsampling.

Shapes are (B, C, D, H, W). The blocks restate MONAI's ``UnetResBlock`` and ``UnetrUpBlock`` as
SegMamba uses them: 3³ convolutions without bias, instance norm without parameters, LeakyReLU 0.01.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from model_core.ops import instance_norm

_SLOPE = 0.01


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Lay ``x`` (B, C, D, H, W) out with channels innermost on a CPU; elsewhere leave it.

    The layout spreads through the network by itself. It makes tokens, norms and most convolutions
    several times cheaper on a CPU and changes no value beyond rounding.
    """
    return x.contiguous(memory_format=torch.channels_last_3d) if x.device.type == "cpu" else x


class ResidualConvBlock(nn.Module):
    """Two 3³ convolutions and a shortcut, which is a 1³ convolution where the width changes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv3d(in_channels, out_channels, 1, bias=False)
            if in_channels != out_channels
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform (B, in, D, H, W) → (B, out, D, H, W)."""
        residual = x if self.shortcut is None else instance_norm(self.shortcut(x))
        x = instance_norm(self.conv1(x), _SLOPE)
        x = instance_norm(self.conv2(x)) + residual
        return F.leaky_relu(x, _SLOPE, inplace=True)


class UpBlock(nn.Module):
    """Double the resolution, join the skip connection, and refine."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose3d(in_channels, out_channels, 2, stride=2, bias=False)
        self.block = ResidualConvBlock(2 * out_channels, out_channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Combine (B, in, D, H, W) with a skip (B, out, 2D, 2H, 2W) → the skip's shape."""
        out: torch.Tensor = self.block(torch.cat([self.upsample(x), skip], dim=1))
        return out
