"""A training config is a value."""

from __future__ import annotations

import dataclasses
import json

import pytest

from model_core.errors import OptionError
from training.config import TrainConfig
from training.recipes import RECIPES, recipe, small_segmamba


@pytest.mark.parametrize("name", RECIPES)
def test_a_config_survives_its_json(name: str) -> None:
    config = recipe(name)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_knows_its_own_name(name: str) -> None:
    assert recipe(name).recipe == name


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        small_segmamba().steps = 3  # type: ignore[misc]


def test_settings_reach_into_nested_values_and_leave_the_rest() -> None:
    config = small_segmamba().with_settings(
        {"network_args.hidden": 64, "augmentation.flip": 0.25, "patch": [48, 48, 48]}
    )
    assert config.network_args["hidden"] == 64
    assert config.network_args["features"] == (16, 32, 64, 128)
    assert config.augmentation.flip == 0.25
    assert config.patch == (48, 48, 48)
    assert config.steps == small_segmamba().steps


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("stepz", 3),
        ("steps", 0),
        ("steps", "many"),
        ("precision", "float64"),
        ("foreground_share", 1.2),
        ("max_minutes", 0),
        ("patch", [64, 64]),
        ("outputs", ["ET", "TC", "WT"]),
        ("augmentation.flop", 1),
    ],
)
def test_a_wrong_setting_is_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(OptionError) as caught:
        small_segmamba().with_settings({setting: value})
    assert caught.value.argument.startswith(setting)


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(OptionError, match="small-segmamba"):
        recipe("huge")


@pytest.mark.parametrize(("fast", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_precision_is_settled_by_the_machine_and_a_name_is_kept(
    monkeypatch: pytest.MonkeyPatch, fast: bool, expected: str
) -> None:
    monkeypatch.delenv("SEGMAMBA_PRECISION", raising=False)
    monkeypatch.setattr("model_core.precision.cpu_features", lambda: {"avx512_bf16": fast})
    auto = small_segmamba().with_settings({"precision": "auto"})
    assert auto.precision == "auto"
    assert auto.settled("cpu") == small_segmamba().with_settings({"precision": expected})
    assert auto.settled("cuda").precision == "float32"
    for name in ("float32", "bfloat16"):
        named = small_segmamba().with_settings({"precision": name})
        assert named.settled("cpu") == named
