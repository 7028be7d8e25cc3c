from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model_core.checkpoints import load_upstream
from model_core.errors import CheckpointError
from model_core.networks import NETWORKS, build_network, network_config, network_name
from model_core.networks.upstream_keys import key_map
from tests.reference.golden import ruled_input, ruled_tensor

CONFIGS: dict[str, dict[str, Any]] = {
    "segmamba": {
        **{"in_channels": 2, "out_channels": 3, "depths": [1, 2, 1, 1]},
        **{"features": [8, 8, 16, 16], "hidden": 24, "num_slices": [64, 32, 16, 8]},
    },
    "segmamba-brtm": {
        **{"in_channels": 2, "out_channels": 3, "base_channels": 8, "depths": [1, 1, 2, 1]},
    },
    "lightm-unet": {
        **{"spatial_dims": 3, "in_channels": 2, "out_channels": 3, "init_filters": 8},
        **{"blocks_down": [1, 2, 1, 1], "blocks_up": [1, 2, 1]},
    },
}
Weights = dict[str, Tensor]


def authors_weights(family: str, **changes: object) -> Weights:
    tensors = build_network(family, **(CONFIGS[family] | changes)).state_dict()
    names = key_map(family, tensors)
    return {name: ruled_tensor(name, tuple(tensors[ours].shape)) for name, ours in names.items()}


@pytest.fixture(params=NETWORKS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_family_and_sizes_are_read_from_the_tensors(family: str, tmp_path: Path) -> None:
    torch.save(authors_weights(family), tmp_path / "w.pt")
    network = load_upstream(tmp_path / "w.pt")
    assert network_name(network) == family
    assert network_config(network) == CONFIGS[family]


def test_two_dimensions_are_read_from_the_tensors(tmp_path: Path) -> None:
    torch.save(authors_weights("lightm-unet", spatial_dims=2), tmp_path / "w.pt")
    assert load_upstream(tmp_path / "w.pt").spatial_dims == 2


def nnunet_file(weights: Weights) -> dict[str, Any]:
    """What nnU-Net leaves behind: NumPy numbers and arrays beside the weights."""
    return {
        "network_weights": weights,
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
        "logging": {"mean_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(-0.1)]},
        "_best_ema": np.mean(np.ones(3)),
        "init_args": {"device": torch.device("cuda"), "fold": "all", "seeds": np.arange(3)},
        "trainer_name": "nnUNetTrainerLightMUNet",
    }


WRAPPINGS: dict[str, Callable[[Weights], Any]] = {
    "plain": lambda w: w,
    "module. prefix": lambda w: {f"module.{key}": value for key, value in w.items()},
    "compiled": lambda w: {f"_orig_mod.{key}": value for key, value in w.items()},
    "state_dict": lambda w: {"state_dict": w, "epoch": 3},
    "model_state_dict": lambda w: {
        **{"epoch": 3, "model_state_dict": w, "optimizer_state_dict": {"state": {}}},
        **{"metrics": {"dice": np.float64(0.9)}, "run_name": "a", "timestamp": "2025-01-01"},
    },
    "network_weights": nnunet_file,
    "module": lambda w: {"module": w},
    "prefix inside a wrapper": lambda w: {"state_dict": {f"module.{k}": v for k, v in w.items()}},
    "parameters": lambda w: {key: torch.nn.Parameter(value) for key, value in w.items()},
    "half": lambda w: {key: value.half() for key, value in w.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapped_files_give_the_same_network(wrapping: str, tmp_path: Path) -> None:
    weights = authors_weights("lightm-unet")
    torch.save(weights, tmp_path / "plain.pt")
    torch.save(WRAPPINGS[wrapping](weights), tmp_path / "wrapped.pt")
    plain, wrapped = load_upstream(tmp_path / "plain.pt"), load_upstream(tmp_path / "wrapped.pt")
    for name, tensor in plain.state_dict().items():
        other = wrapped.state_dict()[name]
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, tensor, rtol=1e-3 if wrapping == "half" else 0, atol=1e-3)


def test_safetensors_are_recognised_by_content(family: str, tmp_path: Path) -> None:
    weights = authors_weights(family)
    save_file({f"module.{key}": value for key, value in weights.items()}, tmp_path / "w.bin")
    torch.save(weights, tmp_path / "w.safetensors")
    image = ruled_input((1, 2, 32, 32, 32))
    with torch.inference_mode():
        one, two = (load_upstream(tmp_path / f"w.{end}")(image) for end in ("bin", "safetensors"))
    torch.testing.assert_close(one, two)


def test_dtype_is_float32_unless_asked_otherwise(tmp_path: Path) -> None:
    weights = authors_weights("segmamba-brtm")
    torch.save({key: value.double() for key, value in weights.items()}, tmp_path / "w.pt")
    for wanted in (torch.float32, torch.float64):
        network = load_upstream(tmp_path / "w.pt", dtype=wanted)
        assert {parameter.dtype for parameter in network.parameters()} == {wanted}
        counters = [v for k, v in network.state_dict().items() if k.endswith("batches_tracked")]
        assert {int(counter) for counter in counters} == {7}


@pytest.mark.parametrize("position", [0, 1, 2, 25, -2, -1])
def test_missing_and_misshapen_tensors_are_named(
    family: str, position: int, tmp_path: Path
) -> None:
    weights = authors_weights(family)
    floating = [key for key, value in weights.items() if value.ndim > 0]
    name = floating[position]

    torch.save({key: value for key, value in weights.items() if key != name}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="missing") as caught:
        load_upstream(tmp_path / "w.pt")
    assert name in str(caught.value)

    for shape in (
        (weights[name].shape[0] + 1, *weights[name].shape[1:]),
        (1, *weights[name].shape),
    ):
        torch.save(weights | {name: torch.zeros(shape)}, tmp_path / "w.pt")
        with pytest.raises(CheckpointError) as caught:
            load_upstream(tmp_path / "w.pt")
        assert name in str(caught.value)


@pytest.mark.parametrize("extra", ["out.extra.weight", "auxiliary", "head.0.weight"])
def test_an_unknown_tensor_is_named(family: str, extra: str, tmp_path: Path) -> None:
    torch.save(authors_weights(family) | {extra: torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=f"unknown tensor: {extra}"):
        load_upstream(tmp_path / "w.pt")


def test_a_tensor_of_another_block_does_not_pass_for_one_more_block(
    family: str, tmp_path: Path
) -> None:
    places = {
        "segmamba": "vit.stages.0.7.norm.weight",
        "segmamba-brtm": "encoders.0.blocks.7.conv.0.weight",
        "lightm-unet": "down_layers.0.7.norm1.weight",
    }
    torch.save(authors_weights(family) | {places[family]: torch.ones(8)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="unknown tensor") as caught:
        load_upstream(tmp_path / "w.pt")
    assert places[family] in str(caught.value)


def test_tensors_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    weights = authors_weights("segmamba")
    torch.save(weights | {"out.conv.conv.bias": torch.zeros(5)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="number of classes") as caught:
        load_upstream(tmp_path / "w.pt")
    assert "out.conv.conv.bias says 5" in str(caught.value)
    assert "out.conv.conv.weight says 3" in str(caught.value)


def test_values_that_would_poison_every_result_are_named(tmp_path: Path) -> None:
    weights = authors_weights("segmamba-brtm")
    weights["segmentation_head.bias"][1] = torch.nan
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(
        CheckpointError, match=r"NaN or infinity in tensor: segmentation_head\.bias"
    ):
        load_upstream(tmp_path / "w.pt")


REFUSED: dict[str, tuple[Any, str]] = {
    "SegMamba-V2": ({"vit.stages.2.0.mamba.A_log": torch.zeros(4, 16)}, "SegMamba-V2"),
    "early LightM-UNet": ({"convInit.conv.weight": torch.zeros(8, 1, 3, 3)}, "early LightM-UNet"),
    "something else": ({"layer1.0.weight": torch.zeros(3)}, "layer1.0.weight"),
    "our own names": (build_network("lightm-unet", init_filters=8).state_dict(), "no known family"),
    "a stray": (
        {"convInit.0.conv.bias": torch.zeros(3)},
        r"missing tensor convInit\.0\.conv\.weight",
    ),
    "no tensors": ({}, "no tensor at all"),
    "a list": ([torch.zeros(3)], "holds a list"),
    "a tensor": (torch.zeros(3), "holds a Tensor"),
    "numbers": ({"epoch": 3}, "epoch is a int"),
    "a number inside": ({"state_dict": {"convInit.0.conv.weight": 3}}, "convInit.0.conv.weight"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    content, reason = REFUSED[name]
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=reason):
        load_upstream(tmp_path / "w.pt")


class Payload:
    """Unpickling this writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_weights_file_is_refused_and_never_runs(legacy: bool, tmp_path: Path) -> None:
    hostile = {**authors_weights("lightm-unet"), "extra": Payload(tmp_path / "ran")}
    torch.save(hostile, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="besides tensors"):
        load_upstream(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def test_a_plain_pickle_never_runs(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Payload(tmp_path / "ran"), protocol=2))
    with pytest.raises(CheckpointError):
        load_upstream(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x80\x02", b"no weights", b"\x00" * 8 + b"{"]
)
def test_damaged_files_are_one_kind_of_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(CheckpointError):
        load_upstream(tmp_path / "w.pt")


def test_a_truncated_file_and_a_missing_one_are_told_apart(tmp_path: Path) -> None:
    torch.save(authors_weights("lightm-unet"), tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_upstream(tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="cannot be opened"):
        load_upstream(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match="cannot be opened"):
        load_upstream(tmp_path)


def test_a_small_file_cannot_ask_for_a_huge_network(tmp_path: Path) -> None:
    filters = 8 * 10**6  # convolutions of this width would take petabytes
    torch.save({"convInit.1.conv.weight": torch.zeros(filters, 1, 1, 1, 1)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"cannot be read|missing tensor"):
        load_upstream(tmp_path / "w.pt")

    weights = authors_weights("lightm-unet")
    named = {
        name: torch.zeros(filters, *weights[name].shape[1:])
        for name in weights
        if name.startswith(("convInit.1.", "conv_final.0.", "conv_final.2.0."))
    }
    torch.save(weights | named, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="wrong shape"):
        load_upstream(tmp_path / "w.pt")
