"""Recipes hold what the publications that they follow release, and nothing contradicts itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from model_core.errors import OptionError
from model_core.networks import build_network, check_window
from training.config import TrainConfig
from training.loop.optim import learning_rate
from training.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_knows_its_name_and_survives_its_json(name: str) -> None:
    config = recipe(name)
    assert config.recipe == name
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_network_takes_its_patch(name: str) -> None:
    config = recipe(name)
    with torch.device("meta"):
        network = build_network(config.network, **config.network_args)
    check_window(network, config.patch[3 - config.task.dims :])
    check_window(network, config.sliding_window[3 - config.task.dims :])


@pytest.mark.parametrize(
    ("name", "released"),
    [
        (
            "brtm-segmamba",
            {"patch": (128, 128, 64), "batch": 2, "accumulate": 2, "learning_rate": 1e-4,
             "weight_decay": 1e-5, "optimiser": "adamw", "foreground_share": 0.5},
        ),
        (
            "lightm-unet-3d",
            {"optimiser": "adam", "learning_rate": 1e-4, "weight_decay": 1e-5, "clip_norm": 12.0,
             "schedule": "poly", "poly_power": 0.9, "deep_supervision": False},
        ),
        (
            "paper-segmamba",
            {"patch": (128, 128, 128), "batch": 2, "optimiser": "sgd", "learning_rate": 1e-2,
             "momentum": 0.99, "weight_decay": 3e-5, "loss": "ce", "ema_decay": 0.0},
        ),
    ],
)  # fmt: skip
def test_a_recipe_holds_the_released_settings(name: str, released: dict[str, Any]) -> None:
    config = recipe(name)
    assert {setting: getattr(config, setting) for setting in released} == released


def test_the_2d_recipe_is_the_3d_one_on_slices() -> None:
    flat, deep = recipe("lightm-unet-2d").to_json(), recipe("lightm-unet-3d").to_json()
    changed = {name for name in flat if flat[name] != deep[name]}
    assert changed == {"recipe", "task", "patch", "network_args"}
    assert flat["network_args"]["spatial_dims"] == 2


@pytest.mark.parametrize("name", RECIPES)
def test_the_rate_has_fallen_when_a_recipe_ends(name: str) -> None:
    config = recipe(name)
    assert config.steps > config.warmup_steps
    last = learning_rate(config, step=config.steps - 1, elapsed_seconds=0.0)
    assert 0 <= last < 0.02 * config.learning_rate


def test_the_batch_is_overridden_by_one_setting() -> None:
    config = recipe("published-segmamba").with_settings({"batch": 1, "accumulate": 2})
    assert (config.batch, config.accumulate) == (1, 2)


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(OptionError, match="small-segmamba"):
        recipe("huge")
