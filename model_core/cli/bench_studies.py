"""Images and studies in ``segmamba bench``: copies beside the computation, and label maps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Final

import torch
from torch import Tensor

from model_core.cli.bench_kernels import peak, relative
from model_core.cli.bench_plan import BenchPlan
from model_core.cli.bench_steps import Figure, Measured, Step, timed
from model_core.imaging.study import Study, make_study
from model_core.inference.accelerator import Accelerator
from model_core.inference.lanes import Overlapped
from model_core.inference.segmentation import Segmentation
from model_core.inference.segmenter import Segmenter
from model_core.inference.sliding_window import sliding_window
from model_core.inference.windows import WindowPlan
from model_core.labels import LabelArray
from model_core.metrics import region_dice
from model_core.ops import use_backend
from model_core.phantom import Phantom, make_phantom
from model_core.precision import Precision, resolve_precision

TOLERANCE: Final = 1e-2
"""Largest relative distance (L2) between scores that were copied in another order: the same
numbers, added up on another device."""
ROUNDS: Final = 3
"""Of what takes a whole image."""


def copy_steps(plan: BenchPlan) -> Iterator[Step]:
    """One image: on the device, and in the host's memory with and without overlapping copies."""
    image = _Image(plan)
    subject = " × ".join(str(side) for side in image.shape)
    ways: dict[str, Callable[[], Tensor]] = {
        "on the device": image.on_the_device,
        "in the host's memory, copies beside the computation": image.overlapped,
        "in the host's memory, one after another": image.in_turn,
    }
    for way, walk in ways.items():
        measure = partial(image.measure, walk)
        yield Step(part="copies", subject=subject, way=way, measure=measure)


def study_steps(plan: BenchPlan) -> Iterator[Step]:
    """The generated study in each precision, held against float32."""
    phantom = _Phantom(plan)
    subject = "phantom of " + " × ".join(str(side) for side in plan.phantom)
    for precision in plan.precisions:
        for graphs in plan.graphs:
            way = f"{precision}{', recorded' if graphs else ''}"
            measure = partial(phantom.measure, precision, graphs)
            yield Step(part="study", subject=subject, way=way, measure=measure)


class _Image:
    """Noise, and the bundle's network over its windows in three ways."""

    def __init__(self, plan: BenchPlan) -> None:
        self._plan = plan
        self.shape = (40, 36, 32) if plan.quick else (160, 192, 160)
        self._windows = WindowPlan(window=plan.window)

    def measure(self, walk: Callable[[], Tensor]) -> Measured:
        """Time one way, and hold its scores against those of the image on the device."""
        accelerator = self._accelerator
        with torch.inference_mode(), use_backend(self._plan.backend):
            truth = self._truth
            accelerator.reset_peak()
            rounds = min(ROUNDS, self._plan.counted)
            seconds = timed(walk, accelerator, warm_up=self._plan.warm_up, rounds=rounds)
            error = relative(walk(), truth)
        figures: dict[str, Figure] = {**peak(self._plan), "error": error}
        return Measured(seconds=seconds, figures=figures, agrees=error < TOLERANCE)

    def on_the_device(self) -> Tensor:
        """As a study usually runs."""
        image = self._host.to(self._plan.device)
        return sliding_window(self._run, image, plan=self._windows)

    def overlapped(self) -> Tensor:
        """As one runs whose sums do not fit."""
        lane = Overlapped(self._accelerator)
        return sliding_window(self._run, self._host, plan=self._windows, lane=lane)

    def in_turn(self) -> Tensor:
        """The same without overlapping."""

        def there_and_back(windows: Tensor) -> Tensor:
            return self._run(windows.to(self._plan.device)).to(windows.device)

        return sliding_window(there_and_back, self._host, plan=self._windows)

    @cached_property
    def _host(self) -> Tensor:
        channels = len(self._plan.bundle.card.channels)
        return torch.randn(channels, *self.shape, generator=torch.Generator().manual_seed(2))

    @cached_property
    def _truth(self) -> Tensor:
        return self.on_the_device()

    @cached_property
    def _accelerator(self) -> Accelerator:
        return self._plan.accelerated(resolve_precision(self._plan.device), graphs=False)

    def _run(self, windows: Tensor) -> Tensor:
        network = self._plan.bundle.network.to(self._plan.device).eval()
        return self._accelerator.run(network, windows)


class _Phantom:
    """A generated study, its truth, and the label map of float32."""

    def __init__(self, plan: BenchPlan) -> None:
        self._plan = plan
        self._exact: LabelArray | None = None

    def measure(self, precision: Precision, graphs: bool) -> Measured:
        """Segment it."""
        segmenter = Segmenter(
            self._plan.bundle, device=str(self._plan.device), precision=precision, graphs=graphs
        )
        results: list[Segmentation] = []

        def run() -> None:
            results[:] = [segmenter.segment(self._study)]

        segmenter.accelerator.reset_peak()
        rounds = min(ROUNDS, self._plan.counted)
        seconds = timed(run, segmenter.accelerator, warm_up=self._plan.warm_up, rounds=rounds)
        if self._exact is None and precision == "float32":
            self._exact = results[0].labels
        figures: dict[str, Figure] = {**peak(self._plan), **self._account(results[0])}
        if graphs:
            figures["graph"] = segmenter.accelerator.graphs
        return Measured(seconds=seconds, figures=figures)

    def _account(self, result: Segmentation) -> dict[str, Figure]:
        figures: dict[str, Figure] = {
            "windows": len(result.window_seconds),
            "window s": statistics.median(result.window_seconds),
            "infer s": result.stage_seconds["infer"],
        }
        if self._exact is not None:
            agreement = region_dice(result.labels, self._exact)
            figures |= {f"{region} as float32": dice for region, dice in agreement.items()}
        truth = region_dice(result.labels, self._made.labels.array)
        figures["Dice with the truth"] = statistics.fmean(truth.values())
        if result.memory_steps:
            figures["memory ran out"] = ", ".join(result.memory_steps)
        return figures

    @cached_property
    def _made(self) -> Phantom:
        return make_phantom(0, shape=self._plan.phantom)

    @cached_property
    def _study(self) -> Study:
        return make_study(self._made.images)
