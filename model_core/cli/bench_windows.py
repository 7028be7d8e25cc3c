"""Whole windows in ``segmamba bench``: each precision, kernel by kernel and as a recorded graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Final

import torch
from torch import Tensor, nn

from model_core.cli.bench_kernels import peak, relative
from model_core.cli.bench_plan import BenchPlan
from model_core.cli.bench_steps import Figure, Measured, Step, timed
from model_core.inference.device import copied_to_cpu
from model_core.inference.graphs import WARM_UP
from model_core.networks import build_network
from model_core.ops import Backend, best_backend, use_backend
from model_core.precision import Precision

TOLERANCE: Final = 1e-2
"""Largest relative distance (L2) of float32 logits from those of the CPU. On a GPU convolutions may
round their inputs to TF32, near 1e-3; half precisions are reported and not judged."""
SMALL: Final = {"features": (8, 8, 16, 16), "hidden": 16, "depths": (1, 1, 1, 1)}


class Subject:
    """A network, a window for it, and what the CPU says of it.

    Args:
        name: in the tables.
        make: gives the network.
        plan: on what.
    """

    def __init__(self, name: str, make: Callable[[], nn.Module], plan: BenchPlan) -> None:
        self.name, self._make, self._plan = name, make, plan

    @cached_property
    def network(self) -> nn.Module:
        """On the device."""
        return self._make().to(self._plan.device).eval().requires_grad_(False)

    @cached_property
    def window(self) -> Tensor:
        """Noise (1, C, *window) on the device."""
        draw = torch.Generator().manual_seed(1)
        channels = int(getattr(self.network, "in_channels", 4))
        return torch.randn(1, channels, *self._plan.window, generator=draw).to(self._plan.device)

    @cached_property
    def truth(self) -> Tensor:
        """Logits in float32 on the CPU, by its own best backend."""
        with torch.inference_mode(), use_backend(best_backend("cpu")):
            logits: Tensor = copied_to_cpu(self.network)(self.window.cpu())
        return logits


def subjects(plan: BenchPlan) -> tuple[Subject, Subject]:
    """The bundle's network, and SegMamba of the published size with random weights."""
    card = plan.bundle.card
    return (
        Subject(f"{card.name} {card.version}", lambda: plan.bundle.network, plan),
        Subject("small random SegMamba" if plan.quick else "SegMamba, 67 M", _random(plan), plan),
    )


def window_steps(plan: BenchPlan) -> Iterator[Step]:
    """The best backend in each precision, with and without graphs; the others in float32."""
    for subject in subjects(plan):
        for precision in plan.precisions:
            for graphs in plan.graphs:
                yield _step(plan, subject, plan.backend, precision, graphs=graphs)
        for backend in plan.usable:
            if backend != plan.backend:
                yield _step(plan, subject, backend, "float32", graphs=False)


def _step(
    plan: BenchPlan, subject: Subject, backend: Backend, precision: Precision, *, graphs: bool
) -> Step:
    way = f"{backend}, {precision}{', recorded' if graphs else ''}"
    measure = partial(_measure, plan, subject, backend, precision, graphs)
    return Step(part="windows", subject=subject.name, way=way, measure=measure)


def _measure(
    plan: BenchPlan, subject: Subject, backend: Backend, precision: Precision, graphs: bool
) -> Measured:
    accelerator = plan.accelerated(precision, graphs=graphs)
    run = partial(accelerator.run, subject.network, subject.window)
    accelerator.reset_peak()
    with torch.inference_mode(), use_backend(backend):
        seconds = timed(
            run, accelerator, warm_up=WARM_UP + 1 if graphs else plan.warm_up, rounds=plan.counted
        )
        logits = run()
    figures: dict[str, Figure] = {**peak(plan)}
    if graphs:
        figures["graph"] = accelerator.graphs
    error = relative(logits, subject.truth)
    figures["error"] = error
    return Measured(
        seconds=seconds, figures=figures, agrees=precision != "float32" or error < TOLERANCE
    )


def _random(plan: BenchPlan) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return build_network("segmamba", **(SMALL if plan.quick else {}))

    return make
