"""SegMamba-BRTM: a 3-D U-Net with plain Mamba blocks in its deepest stages and its bottleneck.

Source: the network of the public repository Oshadha345/BraTSMamba (folder ``BRTM``), re-stated
from its description. It shares its name and nothing else with the published SegMamba: one scan
direction, BatchNorm, 46.4 M parameters, and 9 to 19 times less scan work.

::

    image (B, in, X, Y, Z)
      stem                       in→F   @ 1
      encoder stage i            F·2^i  @ 1/2^i  ── skip ──┐   (last two stages: Mamba blocks)
        then 2³ convolution, stride 2, to twice the width  │
      bottleneck                 F·16   @ 1/16             │   (conv, Mamba, conv)
      decoder stage i            2³ transposed, cat skip ◄─┘   (always two conv blocks)
      head                       1³ to the classes  ──► logits (B, out, X, Y, Z)

F: base channels. Sides that are not a multiple of 16 lose their odd voxel going down; the decoder
stretches the up-sampled map to its skip, so every size from 16 voxels up is taken. Tokens are
voxels in row-major order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.errors import OptionError
from model_core.networks.blocks import Conv3d, DoublingConv3d, channels_last
from model_core.networks.mamba import MambaMixer
from model_core.networks.tokens import FloatLayerNorm, check_input, to_tokens, to_volume

MAMBA_STAGES = 2
"""The deepest encoder stages use Mamba blocks, the others convolutions."""
DECODER_BLOCKS = 2


class SegMambaBRTM(nn.Module):
    """The whole network.

    Args:
        in_channels: image channels.
        out_channels: classes; the output holds their raw logits.
        base_channels: F, the width of the first stage.
        depths: blocks of each encoder stage.

    Raises:
        OptionError: for depths that make no network.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        *,
        base_channels: int = 32,
        depths: Sequence[int] = (2, 2, 2, 2),
    ) -> None:
        super().__init__()
        if not depths or min(depths) < 1:
            raise OptionError(
                "depths",
                expected="at least one positive number, the blocks of each encoder stage",
                got=str(tuple(depths)),
                way_out="The published network has (2, 2, 2, 2).",
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.base_channels = base_channels
        self.depths = tuple(depths)
        self.size_multiple = 2 ** len(depths)
        """Sides that are a multiple of this meet their skips without any stretching."""

        widths = [base_channels * 2**stage for stage in range(len(depths))]
        deepest = 2 * widths[-1]
        first_mamba = len(depths) - MAMBA_STAGES
        self.stem = ConvBlock(in_channels, base_channels)
        self.encoders = nn.ModuleList(
            EncoderStage(width, depth, mamba=stage >= first_mamba)
            for stage, (width, depth) in enumerate(zip(widths, depths, strict=True))
        )
        self.bottleneck = nn.Sequential(
            ConvBlock(deepest, deepest), MambaBlock(deepest), ConvBlock(deepest, deepest)
        )
        self.decoders = nn.ModuleList(DecoderStage(width) for width in reversed(widths))
        self.head = Conv3d(base_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Image ``(B, in_channels, X, Y, Z)`` to logits ``(B, out_channels, X, Y, Z)``.

        Raises:
            ShapeError: for a side shorter than `size_multiple`.
        """
        check_input(
            x,
            network="SegMamba-BRTM",
            channels=self.in_channels,
            spatial_dims=3,
            multiple=1,
            minimum=self.size_multiple,
        )
        x = self.stem(channels_last(x))
        skips: list[Tensor] = []
        for stage in self.encoders:
            x, skip = stage(x)
            skips.append(skip)
        x = self.bottleneck(x)
        for stage in self.decoders:
            x = stage(x, skips.pop())
        logits: Tensor = self.head(x)
        return logits.to(self.head.weight.dtype)  # float32 under autocast too


class EncoderStage(nn.Module):
    """Blocks at one grid, then a strided convolution to half the grid and twice the width."""

    def __init__(self, width: int, depth: int, *, mamba: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(MambaBlock(width) if mamba else ConvBlock(width, width) for _ in range(depth))
        )
        self.downsample = Conv3d(width, 2 * width, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, *S)`` to (``(B, 2C, *S/2)``, skip ``(B, C, *S)``)."""
        skip = self.blocks(x)
        return self.downsample(skip), skip


class DecoderStage(nn.Module):
    """Double the grid, meet the skip, refine."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.upsample = DoublingConv3d(2 * width, width)
        self.blocks = nn.Sequential(
            ConvBlock(2 * width, width),
            *(ConvBlock(width, width) for _ in range(DECODER_BLOCKS - 1)),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``(B, 2C, *S/2)`` and skip ``(B, C, *S)`` to ``(B, C, *S)``."""
        x = self.upsample(x)
        if x.shape[2:] != skip.shape[2:]:
            # As published; do not tidy: an odd side is met by stretching, not by padding.
            x = F.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=False)
        refined: Tensor = self.blocks(torch.cat((x, skip), dim=1))
        return refined


class ConvBlock(nn.Module):
    """Twice (3³ convolution, BatchNorm, ReLU), plus the input (1³ and BatchNorm if it widens)."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv1 = Conv3d(width_in, width, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm3d(width)
        self.conv2 = Conv3d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm3d(width)
        self.shortcut = None if width_in == width else Shortcut(width_in, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width_in, *S)`` to ``(B, width, *S)``."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        # As published; do not tidy: the last ReLU comes before the sum, not after it.
        y = F.relu(self.norm2(self.conv2(y)), inplace=True)
        identity: Tensor = x if self.shortcut is None else self.shortcut(x)
        return y + identity


class Shortcut(nn.Module):
    """The residual path where the width changes."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv = Conv3d(width_in, width, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm3d(width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width_in, *S)`` to ``(B, width, *S)``."""
        projected: Tensor = self.norm(self.conv(x))
        return projected


class MambaBlock(nn.Module):
    """``x + mamba(LN(x))`` over the voxels as one sequence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = FloatLayerNorm(width)
        self.mixer = MambaMixer(width, directions=("forward",))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, X, Y, Z)`` to the same."""
        mixed = self.mixer(self.norm(to_tokens(x)))
        return x + to_volume(mixed, x.shape[2:])
