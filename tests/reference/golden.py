"""Stored outputs of the authors' networks, and the rule that rebuilds their weights and input."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

NAMES = ("segmamba_v1_rect", "segmamba_brtm", "lightmunet_2d")
INPUT_SEED = 20261121
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Golden:
    """One stored output with what is needed to make it again."""

    shapes: Shapes
    """The authors' ``state_dict``: name to shape."""
    image: Tensor
    step: int
    logits: Tensor
    """Every `step`-th voxel of the authors' logits."""
    mean: float
    parameters: int

    def thinned(self, logits: Tensor) -> Tensor:
        """The voxels of ``logits`` that were stored."""
        return logits[(..., *(slice(None, None, self.step),) * (logits.ndim - 2))]


def read_golden(name: str) -> Golden:
    """One of `NAMES`."""
    with np.load(Path(__file__).with_name(f"{name}.npz")) as stored:
        shapes = {
            key: tuple(int(side) for side in shape.split(",") if side)
            for key, shape in zip(stored["keys"].tolist(), stored["shapes"].tolist(), strict=True)
        }
        return Golden(
            shapes=shapes,
            image=ruled_input(tuple(stored["in_shape"].tolist())),
            step=int(stored["step"]),
            logits=torch.from_numpy(stored["out"]),
            mean=float(stored["mean"]),
            parameters=int(stored["n_params"]),
        )


def ruled_input(shape: tuple[int, ...]) -> Tensor:
    """The input that belongs to the rule."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(INPUT_SEED))


def ruled_weights(shapes: Shapes) -> dict[str, Tensor]:
    """A whole ``state_dict`` by the rule."""
    return {key: ruled_tensor(key, shape) for key, shape in shapes.items()}


def ruled_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor that the rule gives a parameter of this name (the authors') and shape."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    last = key.rsplit(".", 1)[-1]
    if key.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if last in ("A_log", "A_b_log", "A_s_log"):
        return torch.log(torch.arange(1.0, shape[1] + 1)).repeat(shape[0], 1) + 0.1 * noise
    if last in ("D", "D_b", "D_s", "skip_scale"):
        return 1 + 0.1 * noise
    if key.endswith("running_var"):
        return (1 + 0.1 * noise).abs() + 0.1
    if "dt_proj" in key and key.endswith("bias"):
        return -3 + 0.5 * noise
    if len(shape) >= 2:
        return noise / prod(shape[1:]) ** 0.5
    return 1 + 0.1 * noise if key.endswith("weight") else 0.1 * noise
