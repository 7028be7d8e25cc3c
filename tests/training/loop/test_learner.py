"""Half precision with a scaled loss: an overflow moves nothing, and the scale is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from torch import nn

from training.config import TrainConfig
from training.data.cases import CachedCase
from training.loop.learner import Learner
from training.loop.sampler import Batch, PatchBatches
from training.loop.share import Share
from training.recipes import small_segmamba

MakeCase = Callable[..., CachedCase]
CONFIG = replace(small_segmamba(), patch=(8, 8, 8), batch=1, clip_norm=1e6, channels_last=False)


def learner(config: TrainConfig, scale: float = 2.0**16) -> Learner:
    """A linear network; float16 is the CPU's here, with Fabric's own scaler."""
    torch.manual_seed(0)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
    half = config.precision == "float16"
    plugin = [MixedPrecision("16-mixed", "cpu", scaler)] if half else []
    fabric = Fabric(accelerator="cpu", devices=1, plugins=plugin)
    return Learner(config, nn.Conv3d(4, 3, 1), fabric, Share())


@pytest.fixture
def batch(make_case: MakeCase) -> Batch:
    return PatchBatches([make_case()], CONFIG)[0]


def test_scaled_gradients_move_the_weights_as_unscaled_ones_do(batch: Batch) -> None:
    half, full = learner(replace(CONFIG, precision="float16")), learner(CONFIG)
    results = [machine.gradient([batch, batch]) for machine in (half, full)]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-2)
    assert results[0][1] == pytest.approx(results[1][1], rel=2e-2)
    for machine in (half, full):
        machine.update(0.1)
    for ours, theirs in zip(half.network.parameters(), full.network.parameters(), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)


def test_an_overflowing_gradient_is_skipped_and_scaled_less_the_next_time(batch: Batch) -> None:
    machine = learner(replace(CONFIG, precision="float16"), scale=2.0**60)
    before = [value.clone() for value in machine.network.state_dict().values()]
    losses, norm = machine.gradient([batch])
    assert not math.isfinite(norm)
    assert losses[0] < 10
    machine.update(0.1)
    for value, old in zip(machine.network.state_dict().values(), before, strict=True):
        assert torch.equal(value, old)
    assert machine.state()["scaler"]["scale"] == 2.0**59


def test_the_scale_is_in_the_checkpoint(batch: Batch) -> None:
    config = replace(CONFIG, precision="float16")
    machine, again = learner(config, scale=1024.0), learner(config)
    for _ in range(3):
        machine.gradient([batch])
        machine.update(0.01)
    assert machine.state()["scaler"]["scale"] == 2048.0
    again.load(machine.state())
    assert again.state()["scaler"] == machine.state()["scaler"]


def test_in_full_precision_there_is_nothing_to_scale() -> None:
    assert learner(CONFIG).state()["scaler"] == {}
