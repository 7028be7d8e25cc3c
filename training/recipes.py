"""Recipes: functions that return a whole `TrainConfig`.

A new experiment is a new function, derived from another in a few lines; what it taught is written
in ``training/LOG.md``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from model_core.errors import OptionError
from training.config import TrainConfig


def small_segmamba() -> TrainConfig:
    """SegMamba V1 at a third of its published width: what two CPU cores can train."""
    return TrainConfig(
        recipe="small-segmamba",
        network="segmamba",
        network_args={
            "in_channels": 4,
            "out_channels": 3,
            "depths": (2, 2, 2, 2),
            "features": (16, 32, 64, 128),
            "hidden": 256,
        },
    )


def published_segmamba() -> TrainConfig:
    """SegMamba V1 at its published size and patch; wants a GPU with 24 GB."""
    return dataclasses.replace(
        small_segmamba(),
        recipe="published-segmamba",
        network_args={"in_channels": 4, "out_channels": 3},
        patch=(128, 128, 128),
        steps=100_000,
        learning_rate=3e-4,
        warmup_steps=1000,
        ema_decay=0.999,
        precision="bfloat16",
        channels_last=False,
        validate_minutes=60.0,
    )


RECIPES: Mapping[str, Callable[[], TrainConfig]] = {
    "small-segmamba": small_segmamba,
    "published-segmamba": published_segmamba,
}


def recipe(name: str) -> TrainConfig:
    """The config of a named recipe; an unknown name raises `OptionError`."""
    if name not in RECIPES:
        raise OptionError(
            "recipe", expected=f"one of {', '.join(RECIPES)}", got=repr(name), way_out="Choose one."
        )
    return RECIPES[name]()
