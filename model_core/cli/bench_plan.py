"""What ``segmamba bench gpu`` measures, in which sizes, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import torch

from model_core.checkpoints import DEFAULT_MODEL, Bundle, load_bundle
from model_core.cli.bench_steps import Step
from model_core.errors import SegMambaError
from model_core.inference.accelerator import Accelerator, accelerator_for
from model_core.ops import BACKENDS, Backend, resolve_backend
from model_core.precision import Precision, at_precision, fast_bfloat16
from model_core.types import Shape3


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """On what, and how much.

    Attributes:
        device: what is measured.
        quick: small sizes.
        rounds: runs that count of each measurement, at most.
        model: the bundle that windows and studies go through; None: the default one.
    """

    device: torch.device
    quick: bool
    rounds: int
    model: str | None = None

    @property
    def rehearsal(self) -> bool:
        """Whether there is no GPU in it."""
        return self.device.type != "cuda"

    @property
    def window(self) -> Shape3:
        """Voxels of a window."""
        return (32, 32, 32) if self.quick else (128, 128, 128)

    @property
    def phantom(self) -> Shape3:
        """Voxels of the generated study; the full size is that of a BraTS volume."""
        return (48, 48, 40) if self.quick else (240, 240, 155)

    @cached_property
    def bundle(self) -> Bundle:
        """The model, loaded once; its network lies on the device after its first use."""
        return load_bundle(self.model or DEFAULT_MODEL)

    @cached_property
    def accelerator(self) -> Accelerator:
        """The device in float32, for what needs no network."""
        return self.accelerated("float32", graphs=False)

    def accelerated(self, precision: Precision, *, graphs: bool) -> Accelerator:
        """The device in a precision."""
        arithmetic = partial(at_precision, self.device, precision, cache=False)
        return accelerator_for(self.device, arithmetic, graphs=graphs)

    @cached_property
    def precisions(self) -> tuple[Precision, ...]:
        """float32, and the half precisions that this device computes faster."""
        if self.rehearsal:
            return ("float32", "bfloat16") if fast_bfloat16() else ("float32",)
        major = torch.cuda.get_device_capability(self.device)[0]
        halves: tuple[Precision, ...] = ("bfloat16", "float16") if major >= 8 else ("float16",)
        return ("float32", *(halves if major >= 7 else ()))

    @cached_property
    def graphs(self) -> tuple[bool, ...]:
        """Whether passes are recorded: both ways, where the device can."""
        return (False,) if self.rehearsal else (False, True)

    @cached_property
    def backends(self) -> dict[Backend, str]:
        """Scan backends but the reference, best first, with what keeps them from running here."""
        return {name: self._problem(name) for name in BACKENDS if name != "reference"}

    @property
    def usable(self) -> tuple[Backend, ...]:
        """Those that run here."""
        return tuple(name for name, problem in self.backends.items() if not problem)

    @property
    def counted(self) -> int:
        """Runs that count of one measurement."""
        return 1 if self.quick else self.rounds

    @property
    def warm_up(self) -> int:
        """Runs before them."""
        return 0 if self.quick else 2

    @cached_property
    def backend(self) -> Backend:
        """The backend that runs when nobody names one."""
        return resolve_backend(self.device)

    def _problem(self, name: Backend) -> str:
        try:
            resolve_backend(self.device, name)
        except SegMambaError as error:
            return str(error)
        return ""


def steps_of(plan: BenchPlan) -> list[Step]:
    """Every measurement, the checks of the kernels first."""
    return list(_steps(plan))


def _steps(plan: BenchPlan) -> Iterator[Step]:
    from model_core.cli.bench_kernels import kernel_steps, scan_steps
    from model_core.cli.bench_studies import copy_steps, study_steps
    from model_core.cli.bench_training import training_steps
    from model_core.cli.bench_windows import window_steps

    yield from kernel_steps(plan)
    yield from scan_steps(plan)
    yield from window_steps(plan)
    yield from copy_steps(plan)
    yield from study_steps(plan)
    yield from training_steps(plan)
