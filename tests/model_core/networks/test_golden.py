"""The authors' weights give the authors' logits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model_core.checkpoints import load_upstream
from model_core.networks import Network, build_network
from model_core.networks.upstream_keys import key_map
from model_core.ops import use_backend
from tests.reference import plain
from tests.reference.golden import NAMES, read_golden, ruled_input, ruled_tensor, ruled_weights

TOLERANCE = 1e-4
"""Relative L2. Float32 against float64 gives 1e-6 to 1e-5, a wrong layer order 0.1 or more."""
TOLERANCE_DOUBLE = 1e-9
"""The same in float64 on both sides."""


def relative_error(got: Tensor, wanted: Tensor) -> float:
    return float(torch.linalg.vector_norm(got - wanted) / torch.linalg.vector_norm(wanted))


@pytest.mark.parametrize("name", NAMES)
def test_upstream_weights_reproduce_the_stored_logits(name: str, tmp_path: Path) -> None:
    golden = read_golden(name)
    torch.save(ruled_weights(golden.shapes), tmp_path / "weights.pt")

    network = load_upstream(tmp_path / "weights.pt")
    with torch.inference_mode():
        logits = network(golden.image)

    assert relative_error(golden.thinned(logits), golden.logits) < TOLERANCE
    assert float(logits.mean()) == pytest.approx(golden.mean, abs=1e-4)
    assert sum(parameter.numel() for parameter in network.parameters()) == golden.parameters
    assert not network.training
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in network.parameters())


def authors_weights(family: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights by the rule, in the authors' names, for sizes they did not publish."""
    network = build_network(family, **config)
    tensors = network.state_dict()
    return {
        theirs: ruled_tensor(theirs, tuple(tensors[ours].shape))
        for theirs, ours in key_map(family, tensors).items()
    }


@dataclass(frozen=True)
class Case:
    family: str
    config: dict[str, Any]
    image: tuple[int, ...]
    plain: Callable[[plain.Weights, Tensor], Tensor]


def lightm(image: tuple[int, ...], **config: Any) -> Case:
    return Case("lightm-unet", config, image, plain.lightm_unet)


def brtm(image: tuple[int, ...], **config: Any) -> Case:
    return Case("segmamba-brtm", config, image, plain.brtm)


def segmamba(image: tuple[int, ...], **config: Any) -> Case:
    config["num_slices"] = (64, 32, 16, 8)
    return Case("segmamba", config, image, plain.segmamba)


CASES = {
    "lightm 3d 1 to 3": lightm(
        (1, 1, 16, 8, 24), spatial_dims=3, in_channels=1, out_channels=3, init_filters=8
    ),
    "lightm 3d 4 to 4": lightm(
        (1, 4, 8, 16, 8), spatial_dims=3, in_channels=4, out_channels=4, init_filters=16
    ),
    "lightm 2d 3 to 1": lightm(
        (2, 3, 24, 40), spatial_dims=2, in_channels=3, out_channels=1, init_filters=16
    ),
    "lightm 3d two stages": lightm(
        (1, 2, 6, 4, 8),
        **{"spatial_dims": 3, "in_channels": 2, "out_channels": 2, "init_filters": 8},
        **{"blocks_down": (2, 1), "blocks_up": (3,)},
    ),
    "brtm odd sizes": brtm((1, 4, 17, 23, 30), in_channels=4, out_channels=3, base_channels=8),
    "brtm no widening stem": brtm(
        (2, 8, 16, 18, 16), in_channels=8, out_channels=2, base_channels=8, depths=(1, 2, 1, 3)
    ),
    "segmamba 3 to 2": segmamba(
        (1, 3, 32, 64, 32),
        **{"in_channels": 3, "out_channels": 2, "hidden": 24},
        **{"depths": (1, 2, 1, 1), "features": (8, 12, 16, 20)},
    ),
    "segmamba no widening": segmamba(
        (2, 8, 32, 32, 32),
        **{"in_channels": 8, "out_channels": 4, "hidden": 16},
        **{"depths": (1, 1, 2, 1), "features": (8, 8, 8, 16)},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_other_sizes_agree_with_the_plain_restatement(case: Case, tmp_path: Path) -> None:
    weights = authors_weights(case.family, case.config)
    torch.save(weights, tmp_path / "weights.pt")

    network = load_upstream(tmp_path / "weights.pt", dtype=torch.float64)
    image = ruled_input(case.image).double()
    # The only backend that keeps float64, so that both sides agree to the last digits.
    with torch.inference_mode(), use_backend("torch"):
        got, wanted = network(image), case.plain(plain.double(weights), image)

    assert got.shape == (case.image[0], case.config["out_channels"], *case.image[2:])
    assert relative_error(got, wanted) < TOLERANCE_DOUBLE


@pytest.mark.slow
def test_the_plain_restatement_is_bound_to_the_authors_logits() -> None:
    golden = read_golden("lightmunet_2d")
    weights = plain.double(ruled_weights(golden.shapes))
    with torch.inference_mode():
        logits = plain.lightm_unet(weights, golden.image.double())
    assert relative_error(golden.thinned(logits), golden.logits) < 1e-6


@pytest.mark.parametrize(
    ("family", "config", "parameters", "tensors"),
    [
        ("segmamba", {"num_slices": (64, 32, 16, 8)}, 67_416_196, 291),
        ("segmamba-brtm", {}, 46_422_692, 283),
        ("lightm-unet", {}, 5_015_976, 362),
        ("lightm-unet", {"in_channels": 1, "out_channels": 3}, 5_015_766, 362),
        ("lightm-unet", {"spatial_dims": 2, "in_channels": 3, "out_channels": 1}, 5_011_732, 362),
    ],
)
def test_published_sizes(
    family: str, config: dict[str, Any], parameters: int, tensors: int
) -> None:
    network = build_network(family, **config)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors
    assert len(set(key_map(family, network.state_dict()))) == tensors


TINY_SEGMAMBA = {
    **{"in_channels": 2, "out_channels": 2, "hidden": 8, "num_slices": (64, 32, 16, 8)},
    **{"depths": (1, 1, 1, 1), "features": (8, 8, 8, 8)},
}


def test_every_reverse_and_inter_slice_tensor_matters(tmp_path: Path) -> None:
    # The authors' own fallback without their kernel ignores these tensors and says nothing.
    weights = authors_weights("segmamba", TINY_SEGMAMBA)
    torch.save(weights, tmp_path / "weights.pt")
    network: Network = load_upstream(tmp_path / "weights.pt")
    ours = key_map("segmamba", network.state_dict())
    image = ruled_input((1, 2, 32, 32, 32))
    side_branches = [key for key in weights if re.search(r"mamba\.\w+_[bs](_log|\.|$)", key)]
    assert len(side_branches) == 4 * 2 * 7

    with torch.inference_mode():
        before = network(image)
        for key in side_branches:
            tensor = network.state_dict()[ours[key]]
            kept = tensor.clone()
            tensor.add_(0.5 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)))
            changed = relative_error(network(image), before)
            tensor.copy_(kept)
            assert changed > 1e-5, f"{key} has no effect"
        assert torch.equal(network(image), before)
