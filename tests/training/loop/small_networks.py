"""The three networks at their smallest, for laws that must hold on each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from model_core.networks import build_network
from training.task import BRATS, Task

TASK_2D = replace(BRATS, dims=2)
NETWORKS: dict[str, tuple[str, dict[str, Any], Task]] = {
    "segmamba": (
        "segmamba",
        {"depths": (1, 1, 1, 1), "features": (4, 4, 8, 8), "hidden": 8, "out_channels": 3},
        BRATS,
    ),
    "segmamba-brtm": ("segmamba-brtm", {"base_channels": 4, "out_channels": 3}, BRATS),
    "lightm-unet": (
        "lightm-unet",
        {"init_filters": 8, "blocks_down": (1, 1, 1, 1), "out_channels": 3},
        BRATS,
    ),
    "lightm-unet-2d": (
        "lightm-unet",
        {"spatial_dims": 2, "init_filters": 8, "blocks_down": (1, 1, 1, 1), "out_channels": 3},
        TASK_2D,
    ),
}


def small_network(name: str) -> tuple[nn.Module, Task]:
    """Equal weights at every call."""
    torch.manual_seed(0)
    kind, arguments, task = NETWORKS[name]
    return build_network(kind, **arguments), task


def images(task: Task, side: int = 32) -> torch.Tensor:
    """Noise (1, 4, X, Y, Z)."""
    shape = (1 if task.dims == 2 else side, side, side)
    return torch.randn(1, 4, *shape, generator=torch.Generator().manual_seed(1))
