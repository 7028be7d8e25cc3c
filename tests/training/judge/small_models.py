"""Runs whose network is known by heart: each voxel takes the label of the nearest mean.

On `tests.training.tiny`'s images, read without normalisation, that is nearly always right, so that
a test knows what must come out without training anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.config import Augmentation, TrainConfig
from training.loop.checkpoint import save_checkpoint
from training.recipes import lightm_unet_2d, lightm_unet_3d
from training.task import Task

NIFTI_TASK = Task(channels=("MRI",), labels=("rim", "core"))
PNG_TASK = Task(channels=("XRay",), labels=("blob",), dims=2)
NIFTI_MEANS = (50.0, 170.0, 210.0)
PNG_MEANS = (50.0, 190.0)


class NearestMean(nn.Module):
    """Logits (B, K, *spatial): how near one channel is to each label's mean, as a 1×1 map."""

    size_multiple = 8

    def __init__(self, means: Sequence[float], dims: int = 3) -> None:
        super().__init__()
        wanted = torch.tensor(means)
        self.dims = dims
        self.weight = nn.Parameter(wanted.clone())
        self.bias = nn.Parameter(-wanted.square() / 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dim() == 2 + self.dims, "the squeeze of 2-D tasks was forgotten"
        assert all(side % self.size_multiple == 0 for side in x.shape[-2:])
        column = (1, -1, *(1 for _ in range(self.dims)))
        return x[:, :1] * self.weight.view(column) + self.bias.view(column)


def build_nearest_mean(name: str, **arguments: Any) -> nn.Module:
    """Takes the place of `model_core.networks.build_network`."""
    return NearestMean([0.0] * arguments["out_channels"], arguments.get("spatial_dims", 3))


def nifti_config(**changes: Any) -> TrainConfig:
    """Of `write_nifti_dataset`: own spacing, small windows, no mirrors."""
    values: dict[str, Any] = {
        "task": NIFTI_TASK, "normalisation": "none", "orientation": "RAS", "spacing_mm": None,
        "patch": (16, 16, 16), "precision": "float32", "augmentation": Augmentation(flip=0),
    }  # fmt: skip
    return replace(lightm_unet_3d(), **(values | changes))


def png_config(**changes: Any) -> TrainConfig:
    """Of `write_png_dataset`, likewise."""
    values: dict[str, Any] = {
        "task": PNG_TASK, "normalisation": "none", "orientation": "RAS", "spacing_mm": None,
        "patch": (1, 32, 32), "batch": 3, "precision": "float32",
    }  # fmt: skip
    return replace(lightm_unet_2d(), **(values | changes))


def write_run(
    folder: Path,
    config: TrainConfig,
    weights: Mapping[str, torch.Tensor],
    *,
    training: Sequence[str] = (),
    validation: Sequence[str] = (),
) -> Path:
    """A run's folder as `segmamba train` leaves it, as far as a prediction looks at it."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    split = {"training": list(training), "validation": list(validation)}
    (folder / "split.json").write_text(json.dumps(split))
    save_checkpoint(
        folder / "checkpoints" / "best.pt",
        {"config": config.to_json(), "step": 1, "elapsed": 1.0, "weights": dict(weights)},
    )
    return folder


def nifti_run(folder: Path, means: Sequence[float] = NIFTI_MEANS, **options: Any) -> Path:
    """A run that knows `write_nifti_dataset`."""
    config = options.pop("config", None) or nifti_config()
    return write_run(folder, config, NearestMean(means).state_dict(), **options)


def png_run(folder: Path, means: Sequence[float] = PNG_MEANS, **options: Any) -> Path:
    """A run that knows `write_png_dataset`."""
    config = options.pop("config", None) or png_config()
    return write_run(folder, config, NearestMean(means).state_dict(), **options)
