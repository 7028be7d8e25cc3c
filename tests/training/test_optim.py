"""The learning rate warms up, decays with whichever limit is nearer, and ends at its floor."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model_core.networks import build_network
from training.config import TrainConfig
from training.optim import build_optimiser, learning_rate, progress
from training.recipes import small_segmamba

CONFIG = replace(
    small_segmamba(), steps=100, warmup_steps=10, learning_rate=1.0, final_lr_fraction=0.1
)


def rate(config: TrainConfig, step: int, seconds: float = 0.0) -> float:
    return learning_rate(config, step=step, elapsed_seconds=seconds)


def test_warm_up_is_linear() -> None:
    undecayed = replace(CONFIG, steps=10**9)
    assert [rate(undecayed, step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1, 1])


@pytest.mark.parametrize(("step", "expected"), [(50, 0.55), (100, 0.1), (25, 0.1 + 0.9 * 0.853553)])
def test_cosine_values(step: int, expected: float) -> None:
    assert rate(CONFIG, step) == pytest.approx(expected, rel=1e-5)


def test_time_decays_the_rate_when_it_is_further_than_the_steps() -> None:
    budget = replace(CONFIG, max_minutes=10)
    assert rate(budget, 20, seconds=300) == pytest.approx(rate(CONFIG, 50))
    assert rate(budget, 50, seconds=60) == pytest.approx(rate(CONFIG, 50))


def test_progress_ends_at_one() -> None:
    budget = replace(CONFIG, max_minutes=1)
    assert progress(budget, step=3, elapsed_seconds=61) == 1
    assert progress(CONFIG, step=100, elapsed_seconds=10**6) == 1


def test_weight_decay_spares_biases_norms_and_the_recurrence() -> None:
    network = build_network("segmamba", depths=(1, 1, 1, 1), features=(4, 4, 8, 8), hidden=8)
    decayed, kept = build_optimiser(network, CONFIG).param_groups
    assert decayed["weight_decay"] == CONFIG.weight_decay
    assert kept["weight_decay"] == 0
    spared = {id(parameter) for parameter in kept["params"]}
    for name, parameter in network.named_parameters():
        is_spared = parameter.ndim < 2 or name.endswith("A_log")
        assert (id(parameter) in spared) == is_spared, name
