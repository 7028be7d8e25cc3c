"""What is not finite stops the run and names cases; an overflow of float16 may be skipped."""

from __future__ import annotations

import math

import pytest
import torch
from lightning_fabric import Fabric

from model_core.errors import NumericalError
from training.loop.finite import FiniteGuard
from training.loop.sampler import Batch

NAMES = ("case 1", "BraTS2021_00002", "case 3", "case 4")


def batch(*cases: int) -> Batch:
    return Batch(torch.zeros(0), torch.zeros(0), torch.tensor(cases))


def check(guard: FiniteGuard, losses: list[float], norm: float = 1.0) -> None:
    batches = [batch(0, 1), batch(3), batch(1, 2)][: len(losses)]
    loss = sum(losses) / len(losses)
    guard.check(7, loss, norm, losses=losses, micro_batches=batches)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def test_finite_steps_pass(fabric: Fabric) -> None:
    check(FiniteGuard(fabric, NAMES, scales=False), [1.0, 2.0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_only_the_batches_that_went_wrong_are_blamed(fabric: Fabric, bad: float) -> None:
    with pytest.raises(NumericalError, match=r"step 7.*patches of BraTS2021_00002, case 3\."):
        check(FiniteGuard(fabric, NAMES, scales=False), [1.0, 2.0, bad])


def test_a_gradient_alone_blames_the_whole_step(fabric: Fabric) -> None:
    with pytest.raises(NumericalError, match=r"of case 1, BraTS2021_00002, case 4\."):
        check(FiniteGuard(fabric, NAMES, scales=False), [1.0, 2.0], norm=math.inf)


def test_a_scaled_gradient_may_overflow_but_not_for_ever(fabric: Fabric) -> None:
    guard = FiniteGuard(fabric, NAMES, scales=True)
    for _ in range(20):
        check(guard, [1.0], norm=math.inf)
    check(guard, [1.0])
    for _ in range(20):
        check(guard, [1.0], norm=math.nan)
    with pytest.raises(NumericalError, match="bfloat16 or float32"):
        check(guard, [1.0], norm=math.inf)


def test_a_scaled_loss_must_be_finite_all_the_same(fabric: Fabric) -> None:
    with pytest.raises(NumericalError, match="case 1"):
        check(FiniteGuard(fabric, NAMES, scales=True), [math.nan])
