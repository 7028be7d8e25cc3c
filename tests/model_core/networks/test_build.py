from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from model_core.errors import OptionError, ShapeError
from model_core.networks import (
    NETWORKS,
    build_network,
    check_window,
    network_config,
    network_name,
)

CONFIGS: dict[str, dict[str, Any]] = {
    "segmamba": {
        **{"in_channels": 2, "out_channels": 3, "depths": [1, 2, 1, 1]},
        **{"features": [8, 8, 16, 16], "hidden": 24, "num_slices": None},
    },
    "segmamba-brtm": {
        **{"in_channels": 2, "out_channels": 3, "base_channels": 8, "depths": [1, 1, 2]},
    },
    "lightm-unet": {
        **{"spatial_dims": 2, "in_channels": 2, "out_channels": 3, "init_filters": 16},
        **{"blocks_down": [1, 2], "blocks_up": [2]},
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_name_and_config_rebuild_the_same_network(name: str) -> None:
    network = build_network(name, **CONFIGS[name])
    assert network_name(network) == name
    assert network_config(network) == CONFIGS[name]
    assert network_config(copy.deepcopy(network)) == CONFIGS[name]
    again = build_network(name, **network_config(network))
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in network.state_dict().items()
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_size_multiple_is_what_the_network_takes_and_keeps(name: str) -> None:
    network = build_network(name, **CONFIGS[name]).eval()
    dims = CONFIGS[name].get("spatial_dims", 3)
    sides = (network.size_multiple, *(2 * network.size_multiple,) * (dims - 1))
    with torch.inference_mode():
        logits = network(torch.randn(1, 2, *sides))
    assert logits.shape == (1, 3, *sides)
    assert bool(torch.isfinite(logits).all())


def test_unknown_name_and_argument_are_named_with_those_that_exist() -> None:
    with pytest.raises(OptionError, match="lightm-unet"):
        build_network("unet")
    with pytest.raises(OptionError, match="base_channels") as caught:
        build_network("segmamba-brtm", feat_size=[48])
    assert caught.value.argument == "feat_size"


@pytest.mark.parametrize("value", ["many", None, -3, [1]])
def test_values_that_make_no_network_are_option_errors(value: object) -> None:
    with pytest.raises(OptionError):
        build_network("lightm-unet", init_filters=value)


def test_a_wrapped_network_has_no_name() -> None:
    with pytest.raises(OptionError, match="Unwrap"):
        network_name(nn.Sequential(build_network("lightm-unet", **CONFIGS["lightm-unet"])))


def test_a_window_is_judged_before_any_image_comes() -> None:
    official = build_network("segmamba", **(CONFIGS["segmamba"] | {"num_slices": [64, 32, 16, 8]}))
    check_window(official, (64, 96, 128))
    with pytest.raises(ShapeError, match="multiples of 16"):
        check_window(official, (64, 64, 72))
    with pytest.raises(ShapeError, match="num_slices"):
        check_window(official, (48, 48, 48))
    check_window(build_network("segmamba", **CONFIGS["segmamba"]), (48, 48, 48))
