"""How much memory a training step will take: an estimate before anything is built.

Activations grow with the voxels of a micro-batch and with the width of the first stage, which holds
nearly all of them. The bytes per voxel were counted (tensors saved for the backward pass, float32,
published widths, patches of 32³ and 48³, 128² and 256²); they differ by less than 7 % between the
sizes. The allowance covers gradients on their way and the libraries' workspace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from model_core.types import Shape3
from training.config import NetworkName

ALLOWANCE: Final = 1.25
BASE_GB: Final = 0.8
"""A process with its libraries, on a GPU the context."""
_BYTES_PER_WEIGHT: Final = 20
"""Weight, gradient, two moments and the average, float32 each."""


@dataclass(frozen=True, kw_only=True)
class Appetite:
    """Of one network."""

    multiple: int
    """Each axis of a patch is a multiple of this: the network's total stride."""
    bytes_per_voxel: Mapping[int, int]
    """Dimensions → saved bytes per voxel and channel of the first stage."""
    width: int
    """Published channels of the first stage."""
    weights: float
    """Millions, at the published width."""


APPETITES: Final[Mapping[str, Appetite]] = {
    "segmamba": Appetite(multiple=16, bytes_per_voxel={3: 115}, width=48, weights=67.4),
    "segmamba-brtm": Appetite(multiple=16, bytes_per_voxel={3: 157}, width=32, weights=46.4),
    "lightm-unet": Appetite(multiple=8, bytes_per_voxel={3: 278, 2: 437}, width=32, weights=5.0),
}


def appetite(network: NetworkName) -> Appetite:
    """What is known of a network."""
    return APPETITES[network]


def estimate_gb(
    network: NetworkName,
    args: Mapping[str, Any],
    *,
    dims: Literal[2, 3],
    patch: Shape3,
    batch: int,
) -> float:
    """Gigabytes (10⁹ bytes) that training will take.

    Args:
        network: by name.
        args: its constructor's arguments; what is left out is as published.
        dims: 2 or 3.
        patch: voxels.
        batch: patches of one micro-batch.
    """
    known = appetite(network)
    width = _width(args, known.width)
    activations = known.bytes_per_voxel[dims] * width * math.prod(patch) * batch
    state = known.weights * 1e6 * (width / known.width) ** 2 * _BYTES_PER_WEIGHT
    return BASE_GB + (ALLOWANCE * activations + state) / 1e9


def available_gb() -> float:
    """The memory of the first GPU, else half of what this process may use."""
    import torch

    from model_core.cpu import memory_limit_bytes

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory) / 1e9
    return memory_limit_bytes() / 2e9


def _width(args: Mapping[str, Any], published: int) -> int:
    features = args.get("features") or (published,)
    return int(args.get("init_filters") or args.get("base_channels") or features[0])
