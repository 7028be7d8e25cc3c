"""One training step in ``segmamba bench``: forward, loss, backward, AdamW.

The loss is binary cross-entropy with noise as its target. The package that trains adds Dice,
clipping and averaged weights, which cost little beside the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from typing import Final

import torch
from torch.nn import functional as F

from model_core.cli.bench_kernels import peak
from model_core.cli.bench_plan import BenchPlan
from model_core.cli.bench_steps import Figure, Measured, Step, timed
from model_core.cli.bench_windows import Subject, subjects
from model_core.ops import use_backend
from model_core.precision import Precision, at_precision

LEARNING_RATE: Final = 1e-3


def training_steps(plan: BenchPlan) -> Iterator[Step]:
    """Each network in each precision; one window a step."""
    for subject in subjects(plan):
        for precision in plan.precisions:
            measure = partial(_measure, plan, subject, precision)
            yield Step(part="training", subject=subject.name, way=precision, measure=measure)


class _Trainee:
    """A copy of a network that learns one window by heart."""

    def __init__(self, plan: BenchPlan, subject: Subject, precision: Precision) -> None:
        self._plan, self._precision = plan, precision
        self._network = deepcopy(subject.network).train().requires_grad_(True)
        self._optimiser = torch.optim.AdamW(self._network.parameters(), lr=LEARNING_RATE)
        # float16 ends at 65504 and its small gradients at 0: the loss is scaled
        self._scaler = torch.amp.GradScaler(plan.device.type, enabled=precision == "float16")
        self._window = subject.window
        self.losses: list[float] = []

    def step(self) -> None:
        """One step; the loss is read, as a training loop does."""
        self._optimiser.zero_grad()
        with at_precision(self._plan.device, self._precision):
            logits = self._network(self._window)
        target = (self._window[:, :1] > 0).float().expand_as(logits)
        loss = F.binary_cross_entropy_with_logits(logits.float(), target)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's own
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self.losses.append(float(loss.detach()))


def _measure(plan: BenchPlan, subject: Subject, precision: Precision) -> Measured:
    plan.accelerator.reset_peak()
    trainee = _Trainee(plan, subject, precision)
    with use_backend(plan.backend):
        seconds = timed(trainee.step, plan.accelerator, warm_up=plan.warm_up, rounds=plan.counted)
    first, last = trainee.losses[0], trainee.losses[-1]
    figures: dict[str, Figure] = {**peak(plan), "first loss": first, "last loss": last}
    return Measured(seconds=seconds, figures=figures, agrees=math.isfinite(last))
