"""The learning rate warms up, decays with whichever limit is nearer, and ends at its floor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model_core.networks import build_network
from training.config import TrainConfig
from training.loop.optim import build_optimiser, learning_rate, progress
from training.recipes import recipe, small_segmamba

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


def test_as_released_every_weight_decays_and_by_default_none_that_is_spared() -> None:
    for config, kept in (
        (recipe("paper-segmamba"), 3e-5),
        (recipe("lightm-unet-3d"), 1e-5),
        (recipe("small-segmamba"), 0.0),
    ):
        groups = build_optimiser(torch.nn.Linear(2, 2), config).param_groups
        assert [group["weight_decay"] for group in groups] == [config.weight_decay, kept]


def test_the_polynomial_ends_at_zero() -> None:
    poly = replace(CONFIG, schedule="poly", poly_power=0.9, warmup_steps=0)
    assert rate(poly, 0) == 1
    assert rate(poly, 50) == pytest.approx(0.5**0.9)
    assert rate(poly, 100) == 0


def test_warm_up_comes_before_the_polynomial_too() -> None:
    poly = replace(CONFIG, schedule="poly", steps=10**9)
    assert [rate(poly, step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1])


def moved(config: TrainConfig, steps: int = 2) -> list[float]:
    """A weight of 1 with gradient 2 at every step, after each of them."""
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(module.weight)
    optimiser, places = build_optimiser(module, config), []
    for _ in range(steps):
        module.weight.grad = torch.full((1, 1), 2.0)
        optimiser.step()
        places.append(module.weight.item())
    return places


def test_each_optimiser_moves_by_its_rule() -> None:
    config = replace(CONFIG, learning_rate=0.1, weight_decay=0.0, momentum=0.5)
    # Nesterov: v = 2, then 0.5·2 + 2 = 3; the step is g + 0.5·v
    sgd = moved(replace(config, optimiser="sgd"))
    assert sgd == pytest.approx([1 - 0.1 * 3, 1 - 0.1 * 3 - 0.1 * 3.5])
    for name in ("adam", "adamw"):
        assert moved(replace(config, optimiser=name)) == pytest.approx([0.9, 0.8], rel=1e-4)


def test_adam_decays_through_the_gradient_and_adamw_beside_it() -> None:
    config = replace(CONFIG, learning_rate=0.1, weight_decay=0.5)
    (adamw,) = moved(replace(config, optimiser="adamw"), 1)
    (adam,) = moved(replace(config, optimiser="adam"), 1)
    assert adamw == pytest.approx(1 - 0.1 * 0.5 - 0.1)
    assert adam == pytest.approx(0.9, rel=1e-5)
