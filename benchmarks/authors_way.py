"""SegMamba and LightM-UNet as their authors run them on a CPU: plain PyTorch and MONAI blocks.

float32, contiguous (B, C, D, H, W) and (B, D, L) memory, `nn.InstanceNorm3d`, `F.conv1d`,
`F.softplus`; module names are the authors', so `model_core.networks.key_map` carries this
project's weights over and both ways compute the same function. Written from the papers and the
published module structure (arXiv 2401.13560, arXiv 2403.05246); only the selective scan, which the
authors take from mamba-ssm's CUDA kernel, is handed in, since a CPU has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrUpBlock
from torch import Tensor, nn
from torch.nn import functional as F

from model_core.networks.lightm_unet import LightMUNet
from model_core.networks.segmamba import SegMamba
from model_core.networks.upstream_keys import key_map

Scan = Callable[..., Tensor]
"""``scan(u, delta, A, B, C, D, z, delta_bias)`` with u, delta, z (batch, D, L) and B, C (batch, N,
L): softplus of delta + bias, the scan, the skip D u and the gate silu(z)."""


def as_authors(network: nn.Module, scan: Scan) -> nn.Module:
    """The authors' way of a network of ours, with the same weights and in eval mode.

    Args:
        network: a `SegMamba` or a three-dimensional `LightMUNet`.
        scan: what stands in for their CUDA kernel.
    """
    theirs: nn.Module
    if isinstance(network, SegMamba):
        family, theirs = "segmamba", _segmamba_like(network, scan)
    elif isinstance(network, LightMUNet) and network.spatial_dims == 3:
        family, theirs = "lightm-unet", _lightm_like(network, scan)
    else:
        raise ValueError("network: expected a SegMamba or a 3-D LightMUNet")
    ours = network.state_dict()
    names = key_map(family, ours)
    theirs.load_state_dict({name: ours[names[name]] for name in names}, strict=True)
    return theirs.eval()


def _segmamba_like(network: SegMamba, scan: Scan) -> AuthorsSegMamba:
    device = next(network.parameters()).device
    with torch.device(device):
        return AuthorsSegMamba(
            network.in_channels,
            network.out_channels,
            depths=network.depths,
            features=network.features,
            hidden=network.hidden,
            slices=network.num_slices,
            scan=scan,
        )


def _lightm_like(network: LightMUNet, scan: Scan) -> AuthorsLightMUNet:
    device = next(network.parameters()).device
    with torch.device(device):
        return AuthorsLightMUNet(
            network.in_channels,
            network.out_channels,
            filters=network.init_filters,
            blocks_down=network.blocks_down,
            blocks_up=network.blocks_up,
            scan=scan,
        )


# ---------------------------------------------------------------------------------------- Mamba


class Mamba(nn.Module):
    """The mixer on (B, L, C) tokens; ``directions`` names the suffixes of the authors' weights."""

    def __init__(self, dim: int, scan: Scan, directions: Sequence[str] = ("",)) -> None:
        super().__init__()
        inner, state, rank, width = 2 * dim, 16, math.ceil(dim / 16), 4
        self.rank, self.state, self.directions, self.scan = rank, state, tuple(directions), scan
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        for end in directions:
            self.register_parameter(f"A{end}_log", nn.Parameter(torch.zeros(inner, state)))
            self.register_parameter(f"D{end}", nn.Parameter(torch.ones(inner)))
            convolution = nn.Conv1d(inner, inner, width, groups=inner, padding=width - 1)
            self.add_module(f"conv1d{end}", convolution)
            self.add_module(f"x_proj{end}", nn.Linear(inner, rank + 2 * state, bias=False))
            self.add_module(f"dt_proj{end}", nn.Linear(rank, inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, tokens: Tensor, slices: int = 1) -> Tensor:
        """Mix (B, L, C); SegMamba's three directions are flips and stacks of copies of xz."""
        xz = self.in_proj(tokens).transpose(1, 2).contiguous()  # (B, 2D, L)
        y = self._direction(xz, "")
        if len(self.directions) == 3:
            y = y + self._direction(xz.flip(-1), "_b").flip(-1)
            apart = torch.stack(xz.chunk(slices, dim=-1), dim=-1).flatten(-2)
            back = self._direction(apart, "_s")
            y = y + back.reshape(*back.shape[:2], -1, slices).permute(0, 1, 3, 2).flatten(-2)
        mixed: Tensor = self.out_proj(y.transpose(1, 2))
        return mixed

    def _direction(self, xz: Tensor, end: str) -> Tensor:
        x, z = xz.chunk(2, dim=1)
        length = x.shape[-1]
        x = F.silu(self.get_submodule(f"conv1d{end}")(x)[..., :length])
        projected = self.get_submodule(f"x_proj{end}")(x.transpose(1, 2))
        steps, B, C = projected.split([self.rank, self.state, self.state], dim=-1)
        dt_proj = self.get_submodule(f"dt_proj{end}")
        assert isinstance(dt_proj, nn.Linear)
        delta = dt_proj.weight @ steps.transpose(1, 2)  # (B, D, L); the bias joins in the scan
        A = -torch.exp(self.get_parameter(f"A{end}_log"))
        B, C = (part.transpose(1, 2).contiguous() for part in (B, C))
        return self.scan(x, delta, A, B, C, self.get_parameter(f"D{end}"), z, dt_proj.bias)


# ------------------------------------------------------------------------------------- SegMamba


class _GatedSpatialConv(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, kernel in (("proj", 3), ("proj2", 3), ("proj3", 1), ("proj4", 1)):
            self.add_module(name, nn.Conv3d(channels, channels, kernel, padding=kernel // 2))
            self.add_module(name.replace("proj", "norm"), nn.InstanceNorm3d(channels))
            self.add_module(name.replace("proj", "nonlin"), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        deep = self._step("2", self._step("", x))
        return self._step("4", deep + self._step("3", x)) + x

    def _step(self, number: str, x: Tensor) -> Tensor:
        for part in ("proj", "norm", "nonlin"):
            x = self.get_submodule(part + number)(x)
        return x


class _Mlp(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv3d(channels, 2 * channels, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv3d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.act(self.fc1(x)))
        return y


class _MambaLayer(nn.Module):
    def __init__(self, channels: int, slices: int | None, scan: Scan) -> None:
        super().__init__()
        self.slices = slices
        self.norm = nn.LayerNorm(channels)
        self.mamba = Mamba(channels, scan, ("", "_b", "_s"))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        mixed = self.mamba(tokens, self.slices or x.shape[2])
        out: Tensor = mixed.transpose(1, 2).reshape(x.shape) + x
        return out


class _MambaEncoder(nn.Module):
    def __init__(
        self,
        channels: int,
        depths: Sequence[int],
        features: Sequence[int],
        slices: Sequence[int] | None,
        scan: Scan,
    ) -> None:
        super().__init__()
        stem = nn.Conv3d(channels, features[0], 7, stride=2, padding=3)
        self.downsample_layers = nn.ModuleList([nn.Sequential(stem)])
        for into, out in pairwise(features):
            down = nn.Conv3d(into, out, 2, stride=2)
            self.downsample_layers.append(nn.Sequential(nn.InstanceNorm3d(into), down))
        self.gscs = nn.ModuleList(_GatedSpatialConv(width) for width in features)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    _MambaLayer(width, None if slices is None else slices[i], scan)
                    for _ in range(depths[i])
                )
            )
            for i, width in enumerate(features)
        )
        self.norms = nn.ModuleList(nn.InstanceNorm3d(width) for width in features)
        self.mlps = nn.ModuleList(_Mlp(width) for width in features)

    def forward(self, x: Tensor) -> list[Tensor]:
        skips = []
        parts = (self.downsample_layers, self.gscs, self.stages, self.norms, self.mlps)
        for down, gsc, stage, norm, mlp in zip(*parts, strict=True):
            x = stage(gsc(down(x)))
            skips.append(mlp(norm(x)))
        return skips


class AuthorsSegMamba(nn.Module):
    """SegMamba V1: (B, in, D, H, W) to logits (B, out, D, H, W)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        depths: Sequence[int],
        features: Sequence[int],
        hidden: int,
        slices: Sequence[int] | None,
        scan: Scan,
    ) -> None:
        super().__init__()
        self.vit = _MambaEncoder(in_channels, depths, features, slices, scan)
        widths = (in_channels, *features)
        for i, (into, out) in enumerate(zip(widths, (*features, hidden), strict=True)):
            self.add_module(f"encoder{i + 1}", _basic_block(into, out))
        ascending = (*features, hidden)
        for i, out in enumerate(features):
            up = UnetrUpBlock(
                3, ascending[i + 1], out, kernel_size=3, upsample_kernel_size=2,
                norm_name="instance", res_block=True,
            )  # fmt: skip
            self.add_module(f"decoder{i + 2}", up)
        self.decoder1 = _basic_block(features[0], features[0])
        self.out = UnetOutBlock(3, features[0], out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Compute raw logits."""
        maps = [x, *self.vit(x)]
        skips = [self.get_submodule(f"encoder{i + 1}")(maps[i]) for i in range(5)]
        x = skips.pop()
        for number in (5, 4, 3, 2):
            x = self.get_submodule(f"decoder{number}")(x, skips.pop())
        logits: Tensor = self.out(self.decoder1(x))
        return logits


def _basic_block(into: int, out: int) -> nn.Module:
    return UnetrBasicBlock(3, into, out, 3, 1, norm_name="instance", res_block=True)


# ---------------------------------------------------------------------------------- LightM-UNet


class _VisionMamba(nn.Module):
    def __init__(self, width: int, width_out: int, scan: Scan) -> None:
        super().__init__()
        self.width_out = width_out
        self.norm = nn.LayerNorm(width)
        self.mamba = Mamba(width, scan)
        self.proj = nn.Linear(width, width_out)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        mixed = self.mamba(self.norm(tokens)) + self.skip_scale * tokens
        out = self.proj(self.norm(mixed)).transpose(1, 2)
        volume: Tensor = out.reshape(len(x), self.width_out, *x.shape[2:])
        return volume


class _MambaPair(nn.Module):
    def __init__(self, width: int, scan: Scan) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.act = nn.ReLU(inplace=True)
        self.conv1, self.conv2 = (_VisionMamba(width, width, scan) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv1(self.act(self.norm1(x)))
        y = self.conv2(self.act(self.norm2(y)))
        return y + x


class _ConvBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.act = nn.ReLU(inplace=True)
        self.conv = _separable(width, width)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.act(self.norm1(x))) + self.skip_scale * x
        out: Tensor = self.act(self.norm2(y))
        return out


class AuthorsLightMUNet(nn.Module):
    """LightM-UNet in 3-D: (B, in, D, H, W) to logits (B, out, D, H, W)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        filters: int,
        blocks_down: Sequence[int],
        blocks_up: Sequence[int],
        scan: Scan,
    ) -> None:
        super().__init__()
        widths = [filters * 2**stage for stage in range(len(blocks_down))]
        self.convInit = _separable(in_channels, filters)
        self.down_layers = nn.ModuleList()
        for stage, (width, blocks) in enumerate(zip(widths, blocks_down, strict=True)):
            first: nn.Module = nn.Identity()
            if stage:
                pool = nn.MaxPool3d(kernel_size=2, stride=2)
                first = nn.Sequential(_VisionMamba(width // 2, width, scan), pool)
            pairs = (_MambaPair(width, scan) for _ in range(blocks))
            self.down_layers.append(nn.Sequential(first, *pairs))
        self.up_samples, self.up_layers = nn.ModuleList(), nn.ModuleList()
        for width, blocks in zip(widths[-2::-1], blocks_up, strict=True):
            up = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)
            self.up_samples.append(nn.Sequential(_plain(2 * width, width), up))
            self.up_layers.append(nn.Sequential(*(_ConvBlock(width) for _ in range(blocks))))
        self.conv_final = nn.Sequential(
            nn.GroupNorm(8, filters),
            nn.ReLU(inplace=True),
            _separable(filters, out_channels, kernel=1, bias=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute raw logits."""
        x = self.convInit(x)
        maps = []
        for down in self.down_layers:
            x = down(x)
            maps.append(x)
        maps.pop()
        for sample, refine in zip(self.up_samples, self.up_layers, strict=True):
            x = refine(sample(x) + maps.pop())
        logits: Tensor = self.conv_final(x)
        return logits


def _plain(
    into: int, out: int, kernel: int = 1, *, groups: int = 1, bias: bool = False
) -> nn.Module:
    return Convolution(3, into, out, kernel_size=kernel, groups=groups, bias=bias, conv_only=True)


def _separable(into: int, out: int, *, kernel: int = 3, bias: bool = False) -> nn.Module:
    depthwise = _plain(into, into, kernel, groups=into, bias=bias)
    return nn.Sequential(depthwise, _plain(into, out, bias=bias))
