"""LightM-UNet in 2D and 3D as released: Mamba in the encoder, depthwise convolutions around it.

Source: Liao et al., "LightM-UNet: Mamba Assists in Lightweight UNet for Medical Image
Segmentation" (arXiv 2403.05246) and the code released with it. Where the two differ we follow the
code, because weights exist for the code: one scan direction instead of four, 5.0 M parameters at
32 filters instead of 1.09 M.

::

    image (B, in, *S)
      stem                                            F  @ S
      encoder stage 0            1 residual pair      F  @ S     ── skip ──┐
      encoder stage i   RVM C→2C at the finer grid, then max-pool ÷2,      │
                        then blocks_down[i] residual pairs                 │
      ...                                            8F  @ S/8             │
      decoder stage k   1×1 to half the channels, linear ×2, + skip ◄──────┘
      head              GroupNorm, ReLU, depthwise-separable 1×1  ──► logits (B, out, *S)

F: filters of the first stage. RVM: residual vision Mamba layer. S: the spatial sides, each a
multiple of ``2 ** (stages - 1)``. Tokens are voxels in row-major order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.errors import OptionError
from model_core.networks.blocks import Conv3d, channels_last
from model_core.networks.mamba import MambaMixer
from model_core.networks.tokens import FloatLayerNorm, check_input, to_tokens, to_volume
from model_core.ops.norm import group_norm

NORM_GROUPS = 8
_CONV = {2: nn.Conv2d, 3: Conv3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}


class LightMUNet(nn.Module):
    """The whole network.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes; the output holds their raw logits.
        init_filters: F, a multiple of 8 (the groups of every GroupNorm).
        blocks_down: residual pairs of each encoder stage.
        blocks_up: residual blocks of each decoder stage, from the deepest; one stage fewer.

    Raises:
        OptionError: for an argument outside these rules.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 4,
        *,
        out_channels: int = 4,
        init_filters: int = 32,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        blocks_up: Sequence[int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        _check_options(spatial_dims, init_filters, blocks_down=blocks_down, blocks_up=blocks_up)
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.init_filters = init_filters
        self.blocks_down = tuple(blocks_down)
        self.blocks_up = tuple(blocks_up)
        self.size_multiple = 2 ** len(self.blocks_up)
        """Every side of the input must be a multiple of this."""

        widths = [init_filters * 2**stage for stage in range(len(blocks_down))]
        self.stem = DepthwiseSeparableConv(spatial_dims, in_channels, width_out=init_filters)
        self.encoder = nn.ModuleList(
            EncoderStage(spatial_dims, width, blocks=blocks, first=stage == 0)
            for stage, (width, blocks) in enumerate(zip(widths, blocks_down, strict=True))
        )
        self.decoder = nn.ModuleList(
            DecoderStage(spatial_dims, width, blocks=blocks)
            for width, blocks in zip(widths[-2::-1], blocks_up, strict=True)
        )
        self.head = Head(spatial_dims, init_filters, classes=out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Image ``(B, in_channels, *spatial)`` to logits ``(B, out_channels, *spatial)``.

        Raises:
            ShapeError: for a side that is not a multiple of `size_multiple`.
        """
        check_input(
            x,
            network="LightM-UNet",
            channels=self.in_channels,
            spatial_dims=self.spatial_dims,
            multiple=self.size_multiple,
            minimum=self.size_multiple,
        )
        x = self.stem(channels_last(x))
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        skips.pop()  # the deepest map is the decoder's input, not a skip
        for stage in self.decoder:
            x = stage(x, skips.pop())
        logits: Tensor = self.head(x)
        return logits.to(self.head.conv.pointwise.weight.dtype)  # float32 under autocast too


class EncoderStage(nn.Module):
    """Halve the grid (except in the first stage), then refine with residual Mamba pairs."""

    def __init__(self, spatial_dims: int, width: int, *, blocks: int, first: bool) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.widen = None if first else VisionMambaLayer(width // 2, width)
        self.blocks = nn.Sequential(*(ResidualMambaPair(width) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C/2, *S)`` to ``(B, C, *S/2)``; the first stage keeps channels and grid."""
        if self.widen is not None:
            # As published; do not tidy: the Mamba layer runs at the finer grid, before the pooling.
            x = _max_pool(self.widen(x))
        refined: Tensor = self.blocks(x)
        return refined


class DecoderStage(nn.Module):
    """Double the grid, add the skip, refine with residual convolutions."""

    def __init__(self, spatial_dims: int, width: int, *, blocks: int) -> None:
        super().__init__()
        self.mode = _LINEAR[spatial_dims]
        self.narrow = _CONV[spatial_dims](2 * width, width, kernel_size=1, bias=False)
        self.blocks = nn.Sequential(
            *(ResidualConvBlock(spatial_dims, width) for _ in range(blocks))
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``(B, 2C, *S/2)`` and skip ``(B, C, *S)`` to ``(B, C, *S)``."""
        x = F.interpolate(self.narrow(x), scale_factor=2, mode=self.mode, align_corners=False)
        refined: Tensor = self.blocks(x + skip)
        return refined


class VisionMambaLayer(nn.Module):
    """RVM: ``proj(LN(mamba(LN(x)) + s·x))`` over the voxels as one sequence, s learnt."""

    def __init__(self, width: int, width_out: int) -> None:
        super().__init__()
        self.norm = FloatLayerNorm(width)
        self.mixer = MambaMixer(width, directions=("forward",))
        self.skip_scale = nn.Parameter(torch.ones(1))
        self.proj = nn.Linear(width, width_out)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S)`` to ``(B, width_out, *S)``."""
        tokens = to_tokens(x)
        mixed = self.mixer(self.norm(tokens))
        mixed = torch.addcmul(mixed, self.skip_scale, tokens.to(mixed.dtype))
        # As published; do not tidy: one LayerNorm, with one set of weights, is applied twice.
        out = self.proj(self.norm(mixed).to(self.proj.weight.dtype))
        return to_volume(out, x.shape[2:])


class ResidualMambaPair(nn.Module):
    """``x + rvm(relu(gn(rvm(relu(gn(x))))))``: a pre-activation pair with Mamba for convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(NORM_GROUPS, width)
        self.rvm1 = VisionMambaLayer(width, width)
        self.norm2 = nn.GroupNorm(NORM_GROUPS, width)
        self.rvm2 = VisionMambaLayer(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S)`` to the same."""
        y: Tensor = self.rvm1(_norm_relu(self.norm1, x))
        y = self.rvm2(_norm_relu(self.norm2, y, inplace=True))
        return x + y


class ResidualConvBlock(nn.Module):
    """``relu(gn(conv(relu(gn(x))) + s·x))`` with a depthwise-separable convolution, s learnt."""

    def __init__(self, spatial_dims: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(NORM_GROUPS, width)
        self.conv = DepthwiseSeparableConv(spatial_dims, width, width_out=width)
        self.skip_scale = nn.Parameter(torch.ones(1))
        self.norm2 = nn.GroupNorm(NORM_GROUPS, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S)`` to the same."""
        y = self.conv(_norm_relu(self.norm1, x))
        y = torch.addcmul(y, self.skip_scale.to(y.dtype), x.to(y.dtype))
        return _norm_relu(self.norm2, y, inplace=True)


class DepthwiseSeparableConv(nn.Module):
    """One filter per channel, then a 1×1 mix of the channels; no bias but in the head."""

    def __init__(
        self, spatial_dims: int, width: int, *, width_out: int, kernel: int = 3, bias: bool = False
    ) -> None:
        super().__init__()
        conv = _CONV[spatial_dims]
        self.depthwise = conv(width, width, kernel, padding=kernel // 2, groups=width, bias=bias)
        self.pointwise = conv(width, width_out, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S)`` to ``(B, width_out, *S)``."""
        mixed: Tensor = self.pointwise(self.depthwise(x))
        return mixed


class Head(nn.Module):
    """GroupNorm, ReLU, and a depthwise-separable 1×1 to the classes."""

    def __init__(self, spatial_dims: int, width: int, *, classes: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(NORM_GROUPS, width)
        # As published: a "depthwise convolution" of one voxel is a scale and shift per channel.
        self.conv = DepthwiseSeparableConv(
            spatial_dims, width, width_out=classes, kernel=1, bias=True
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S)`` to logits ``(B, classes, *S)``."""
        logits: Tensor = self.conv(_norm_relu(self.norm, x))
        return logits


def _max_pool(x: Tensor) -> Tensor:
    """The largest of each two voxels along every axis; ``max_pool3d`` forgets the layout."""
    for axis in range(2, x.dim()):
        x = torch.maximum(*x.unfold(axis, 2, 2).unbind(-1))
    return to_volume(to_tokens(x), x.shape[2:])


def _norm_relu(norm: nn.GroupNorm, x: Tensor, *, inplace: bool = False) -> Tensor:
    """``relu(norm(x))``; ``inplace`` where nobody reads ``x`` any more."""
    return group_norm(x, norm.num_groups, norm.weight, norm.bias, 0.0, inplace=inplace)


def _check_options(
    spatial_dims: int, init_filters: int, *, blocks_down: Sequence[int], blocks_up: Sequence[int]
) -> None:
    if spatial_dims not in (2, 3):
        raise OptionError(
            "spatial_dims",
            expected="2 or 3 (the number of spatial axes)",
            got=str(spatial_dims),
            way_out="The number of filters is init_filters.",
        )
    if init_filters < NORM_GROUPS or init_filters % NORM_GROUPS:
        raise OptionError(
            "init_filters",
            expected=f"a positive multiple of {NORM_GROUPS}",
            got=str(init_filters),
            way_out="The published network has 32.",
        )
    if len(blocks_up) != len(blocks_down) - 1 or min(*blocks_down, *blocks_up) < 1:
        raise OptionError(
            "blocks_up",
            expected=f"{len(blocks_down) - 1} positive numbers, one stage fewer than blocks_down",
            got=f"{tuple(blocks_up)} with blocks_down {tuple(blocks_down)}",
            way_out="The published network has (1, 2, 2, 4) and (1, 1, 1).",
        )
