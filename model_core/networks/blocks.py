"""Convolutional blocks of SegMamba: normalised, residual, upsampling.

Shapes are (B, C, D, H, W). The blocks restate MONAI's ``UnetResBlock`` and ``UnetrUpBlock`` as
SegMamba uses them: 3³ convolutions without bias, instance norm without parameters, LeakyReLU 0.01.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from model_core.networks.one_sample import HalvedBackward, convolve_pointwise, wants_halves
from model_core.ops import instance_norm
from model_core.types import Shape3

_SLOPE = 0.01


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Lay ``x`` (B, C, *spatial) out with channels innermost on a CPU; elsewhere leave it.

    The layout spreads through the network by itself. It makes tokens, norms and most convolutions
    several times cheaper on a CPU and changes no value beyond rounding.
    """
    if x.device.type != "cpu":
        return x
    layout = torch.channels_last_3d if x.dim() == 5 else torch.channels_last
    return x.contiguous(memory_format=layout)


class Conv3d(nn.Conv3d):
    """PyTorch's own, computed by oneDNN on a CPU whatever the map and the kernel.

    At batch 1 PyTorch gives float32 maps that are small, and 1³ kernels at any size, to a plain
    loop (``slow_conv3d``), which takes up to eight times as long and forgets the channels-last
    layout; the backward pass too (`model_core.networks.one_sample`). The values differ by rounding.

    In bfloat16, oneDNN 3.12 (PyTorch 2.13, AVX-512) reads unwritten memory for the weights'
    gradient of a padded kernel when the map's first side is 2; such maps are tiny, and are
    convolved in float32.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve (B, in, D, H, W)."""
        if self._miscomputed(x):
            with torch.autocast("cpu", enabled=False):
                return self.forward(x.float()).to(torch.bfloat16)
        if not self._left_to_the_loop(x):
            return super().forward(x)
        padding, stride = cast("Shape3", self.padding), cast("Shape3", self.stride)
        kernel = cast("Shape3", self.kernel_size)
        if torch.is_grad_enabled() and self._dense():
            if kernel == stride == (1, 1, 1) and padding == (0, 0, 0):
                return convolve_pointwise(x, self.weight, self.bias)
            if wants_halves(x, kernel, stride, padding):
                return cast(
                    "torch.Tensor",
                    HalvedBackward.apply(x, self.weight, self.bias, stride, padding),  # type: ignore[no-untyped-call]
                )
        return torch.mkldnn_convolution(
            x, self.weight, self.bias, padding, stride, self.dilation, self.groups
        )

    def _dense(self) -> bool:
        return self.groups == 1 and self.dilation == (1, 1, 1) and self.padding_mode == "zeros"

    def _left_to_the_loop(self, x: torch.Tensor) -> bool:
        return (
            x.shape[0] == 1
            and x.dtype == self.weight.dtype == torch.float32
            and x.device.type == "cpu"
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and not torch.is_autocast_enabled("cpu")
        )

    def _miscomputed(self, x: torch.Tensor) -> bool:
        half = x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        return (
            half
            and x.device.type == "cpu"
            and self.weight.dtype == torch.float32
            and torch.is_grad_enabled()
            and 1 < x.shape[2] < self.kernel_size[0]
        )


class DoublingConv3d(nn.ConvTranspose3d):
    """A transposed 2³ convolution of stride 2, as one matrix product whose rows are dealt out.

    No two results overlap, so each voxel makes its eight children alone. PyTorch's own forgets the
    channels-last layout in float32.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=2, stride=2, bias=bias)

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """``(B, in, D, H, W)`` to ``(B, out, 2D, 2H, 2W)``."""
        if x.device.type != "cpu" or output_size is not None:
            return super().forward(x, output_size)
        batch, _, depth, height, width = x.shape
        children = self.weight.permute(2, 3, 4, 1, 0).reshape(-1, self.in_channels)
        bias = None if self.bias is None else self.bias.repeat(8)
        y = F.linear(x.movedim(1, -1), children, bias)
        y = y.view(batch, depth, height, width, 2, 2, 2, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return y.reshape(batch, 2 * depth, 2 * height, 2 * width, -1).movedim(-1, 1)


class ResidualConvBlock(nn.Module):
    """Two 3³ convolutions and a shortcut, which is a 1³ convolution where the width changes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = Conv3d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = (
            Conv3d(in_channels, out_channels, 1, bias=False)
            if in_channels != out_channels
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform (B, in, D, H, W) → (B, out, D, H, W)."""
        residual = x if self.shortcut is None else instance_norm(self.shortcut(x), inplace=True)
        x = instance_norm(self.conv1(x), _SLOPE, inplace=True)
        return instance_norm(self.conv2(x), _SLOPE, residual=residual, inplace=True)


class UpBlock(nn.Module):
    """Double the resolution, join the skip connection, and refine."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.upsample = DoublingConv3d(in_channels, out_channels, bias=False)
        self.block = ResidualConvBlock(2 * out_channels, out_channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Combine (B, in, D, H, W) with a skip (B, out, 2D, 2H, 2W) → the skip's shape."""
        out: torch.Tensor = self.block(torch.cat([self.upsample(x), skip], dim=1))
        return out
