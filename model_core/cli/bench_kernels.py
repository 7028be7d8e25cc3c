"""Scan kernels in ``segmamba bench``: held against the reference in float64, then timed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Final, NamedTuple

import torch
from torch import Tensor

from model_core.cli.bench_plan import BenchPlan
from model_core.cli.bench_steps import Figure, Measured, Step, timed
from model_core.ops import scan_order, selective_scan

STATES: Final = 16
TOLERANCE: Final = 1e-4
"""Largest relative distance (L2) from the reference; that of float32's rounding is near 1e-6."""
_NAMES: Final = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


class Shape(NamedTuple):
    """One scan: channels D, tokens L, and whether the tokens come backwards, by an order."""

    channels: int
    length: int
    ordered: bool = False

    def __str__(self) -> str:
        """``D 96, L 32768``."""
        order = ", in reverse order" if self.ordered else ""
        return f"D {self.channels}, L {self.length}{order}"


CHECKED: Final = (Shape(27, 410), Shape(96, 1024), Shape(48, 512, ordered=True))
"""Odd sizes, several chunks, and an order."""
STAGES: Final = (Shape(96, 262144), Shape(192, 32768), Shape(384, 4096), Shape(768, 512))
"""The four stages of SegMamba as published, with a window of 128³."""


def kernel_steps(plan: BenchPlan) -> Iterator[Step]:
    """Each backend against the reference."""
    for shape in CHECKED[:1] + CHECKED[2:] if plan.quick else CHECKED:
        for backend in plan.usable:
            measure = partial(_errors, plan, shape, backend)
            yield Step(part="kernels", subject=str(shape), way=backend, measure=measure)


def scan_steps(plan: BenchPlan) -> Iterator[Step]:
    """Each backend on the sizes that SegMamba scans."""
    shapes = (Shape(32, 512), Shape(32, 4096)) if plan.quick else STAGES
    for shape in shapes:
        for backend in plan.usable:
            for gradients in (False, True):
                way = f"{backend}, forward and backward" if gradients else f"{backend}, forward"
                measure = partial(_time, plan, shape, backend, gradients)
                yield Step(part="scan", subject=str(shape), way=way, measure=measure)


def problem(shape: Shape) -> tuple[Tensor, ...]:
    """Arguments of a scan in float32 on the CPU, the same every time; steps as Mamba begins."""
    draw = torch.Generator().manual_seed(0)

    def tokens(width: int) -> Tensor:
        return torch.randn(1, width, shape.length, generator=draw)

    u, delta, z = (tokens(shape.channels) for _ in range(3))
    B, C = tokens(STATES), tokens(STATES)
    A = -torch.arange(1.0, STATES + 1).repeat(shape.channels, 1)
    D = torch.randn(shape.channels, generator=draw)
    bias = torch.rand(shape.channels, generator=draw) - 4.6
    return u, delta * 0.5, A, B, C, D, z, bias


def _results(shape: Shape, backend: str, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The output, then the gradients of its sum of squares by every argument."""
    held = [one.clone().requires_grad_() for one in arguments]
    order = scan_order("reverse", shape.length) if shape.ordered else None
    out = _scan(held, backend, order)
    return out.detach(), *torch.autograd.grad(out.square().sum(), held)


def _scan(arguments: Sequence[Tensor], backend: str, order: Tensor | None = None) -> Tensor:
    u, delta, A, B, C, D, z, bias = arguments
    return selective_scan(u, delta, A, B, C, D, z, bias, True, backend, order=order)


@cache
def _truth(shape: Shape) -> tuple[Tensor, ...]:
    """The reference's results, float64 from float64 on the CPU."""
    return _results(shape, "reference", tuple(one.double() for one in problem(shape)))


def _errors(plan: BenchPlan, shape: Shape, backend: str) -> Measured:
    found = _results(shape, backend, tuple(one.to(plan.device) for one in problem(shape)))
    errors = [relative(a, b) for a, b in zip(found, _truth(shape), strict=True)]
    gradients = dict(zip(_NAMES, errors[1:], strict=True))
    worst = max(gradients, key=lambda name: gradients[name])
    figures: dict[str, Figure] = {
        "forward error": errors[0],
        "largest gradient error": gradients[worst],
        "by": worst,
    }
    return Measured(figures=figures, agrees=max(errors) < TOLERANCE)


def _time(plan: BenchPlan, shape: Shape, backend: str, gradients: bool) -> Measured:
    arguments = [one.to(plan.device).requires_grad_(gradients) for one in problem(shape)]
    plan.accelerator.reset_peak()

    def run() -> None:
        with torch.set_grad_enabled(gradients):
            out = _scan(arguments, backend)
            if gradients:
                torch.autograd.grad(out.sum(), arguments)

    seconds = timed(run, plan.accelerator, warm_up=plan.warm_up, rounds=plan.counted)
    elements = shape.channels * shape.length * STATES
    figures = {"ns per element": sorted(seconds)[len(seconds) // 2] / elements * 1e9}
    return Measured(seconds=seconds, figures=figures | peak(plan))


def peak(plan: BenchPlan) -> dict[str, float]:
    """The peak of the device's memory; of a CPU's it would be that since the program's start."""
    if plan.rehearsal:
        return {}
    return {"peak MiB": round(plan.accelerator.memory().peak / 2**20, 1)}


def relative(got: Tensor, wanted: Tensor) -> float:
    """L2 distance over L2 norm, in float64."""
    exact = wanted.detach().double().cpu()
    return float((got.detach().double().cpu() - exact).norm() / exact.norm())
