"""The networks that are measured, by short names, with random but fixed weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks import scans
from benchmarks.authors_way import as_authors
from model_core.networks import Network, build_network
from model_core.precision import at_precision, fast_bfloat16

CONFIGS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = MappingProxyType(
    {
        "SegMamba 67 M": ("segmamba", {}),
        "SegMamba small16": (
            "segmamba",
            {"features": (16, 32, 64, 128), "hidden": 256, "out_channels": 3},
        ),
        "LightM-UNet": ("lightm-unet", {"init_filters": 32}),
        # for --quick
        "tiny SegMamba": (
            "segmamba",
            {"features": (8, 8, 16, 16), "hidden": 16, "depths": (1,) * 4},
        ),
        "tiny LightM-UNet": (
            "lightm-unet",
            {"init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)},
        ),
    }
)
OURS: Final = "this project"
LENT: Final = "authors' way, torch scan"
SEQUENTIAL: Final = "authors' way, sequential scan"
PSCAN: Final = "authors' way, mambapy pscan"
WAYS: Final = (OURS, LENT, SEQUENTIAL, PSCAN)
SCALED_TOKENS: Final = 2048
"""Tokens of each sequence that a scaled sequential scan walks."""

Forward = Callable[[Tensor], Tensor]


def configured(name: str) -> Network:
    """A network by its short name, weights undefined until seeded by `seeded`."""
    family, config = CONFIGS[name]
    return build_network(family, **config)


def seeded(name: str) -> Network:
    """A network by its short name, in eval mode; the same weights in every process."""
    torch.manual_seed(0)
    return configured(name).eval().requires_grad_(False)


def precisions() -> tuple[str, ...]:
    """float32, and bfloat16 where the processor computes it."""
    return ("float32", "bfloat16") if fast_bfloat16() else ("float32",)


def in_way(network: nn.Module, way: str) -> tuple[nn.Module, scans.Sequential | None]:
    """The same network run in one of `WAYS`; the scan where its time has to be scaled."""
    if way == OURS:
        return network, None
    if way == SEQUENTIAL:
        sequential = scans.Sequential(limit=SCALED_TOKENS)
        return as_authors(network, sequential), sequential
    return as_authors(network, scans.torch_blocked if way == LENT else scans.pscan), None


def forward_in(network: nn.Module, precision: str) -> Forward:
    """A forward pass without gradients whose result is float32."""

    def forward(x: Tensor) -> Tensor:
        with torch.inference_mode(), precision_context(precision):
            y: Tensor = network(x)
        return y.float()

    return forward


def precision_context(precision: str) -> AbstractContextManager[object]:
    """The project's own switch between float32 and bfloat16."""
    return at_precision("cpu", "bfloat16" if precision == "bfloat16" else "float32")


def row_name(way: str, precision: str) -> str:
    """What a row is called: the way, with its precision where it is not float32."""
    return way if precision == "float32" else f"{way}, {precision}"


def window_input(name: str, sides: tuple[int, int, int], batch: int = 1) -> Tensor:
    """Noise (batch, C, *sides), the same in every process."""
    channels = configured_channels(name)
    return torch.randn(batch, channels, *sides, generator=torch.Generator().manual_seed(1))


def configured_channels(name: str) -> int:
    """Input channels of a network."""
    return int(CONFIGS[name][1].get("in_channels", 4))


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """L2 distance over L2 norm."""
    return float((got.float() - wanted.float()).norm() / wanted.float().norm())
