"""The average obeys its recurrence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.loop.ema import Ema


def test_the_average_of_given_weights_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 0.0)
    ema = Ema(network, decay=0.15)
    expected = 0.0
    for update, value in enumerate((1.0, 5.0, -2.0)):
        nn.init.constant_(network.weight, value)
        ema.update(network)
        decay = min(0.15, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
        assert float(ema.network.weight) == pytest.approx(expected, rel=1e-6)


def test_the_average_of_constant_weights_is_these_weights() -> None:
    network = nn.Conv3d(1, 2, 1)
    ema = Ema(network, decay=0.9)
    for _ in range(5):
        ema.update(network)
    torch.testing.assert_close(ema.network.weight, network.weight)


def test_counters_are_copied_not_averaged() -> None:
    network = nn.BatchNorm1d(2)
    ema = Ema(network, decay=0.9)
    network(torch.randn(4, 2))
    ema.update(network)
    assert int(ema.network.num_batches_tracked) == 1


def test_training_on_does_not_move_the_average() -> None:
    network = nn.Linear(1, 1)
    ema = Ema(network, decay=0.9)
    before = ema.network.weight.clone()
    nn.init.constant_(network.weight, 7.0)
    assert torch.equal(ema.network.weight, before)


def test_state_survives_a_round_trip() -> None:
    network = nn.Linear(2, 2)
    ema, other = Ema(network, decay=0.9), Ema(nn.Linear(2, 2), decay=0.9)
    ema.update(network)
    other.load(ema.state())
    assert other.updates == 1
    assert torch.equal(other.network.weight, ema.network.weight)


def test_without_decay_the_average_is_the_weights() -> None:
    network = nn.Linear(3, 3)
    ema = Ema(network, decay=0.0)
    for _ in range(3):
        nn.init.normal_(network.weight)
        ema.update(network)
        assert torch.equal(ema.network.weight, network.weight)
