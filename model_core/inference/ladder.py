"""What a run tries next when memory has run out: a ladder of settings, each needing less.

The first rungs keep the result: fewer windows at once, then sums on the host. The next ones give
another result: the card's window instead of one over the whole brain, then one pass instead of the
mirrored ones, which only the caller may allow. The last one keeps it again and is slow: the CPU.
`docs/concepts/windows.md` says what each rung saves.

Pure settings, no tensors: `model_core.inference.retry` does the trying.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, get_args

from model_core.errors import KernelMemoryError
from model_core.inference.tta import AVERAGED, Flip
from model_core.inference.windows import WindowPlan
from model_core.types import Tta, WindowChoice

MemoryStep = Literal["smaller-batch", "host-sums", "card-window", "fewer-passes", "cpu"]
MEMORY_STEPS: Final[tuple[MemoryStep, ...]] = get_args(MemoryStep)
"""Names of the rungs, in their order."""

_WARNINGS: Final[Mapping[MemoryStep, str]] = MappingProxyType(
    {
        "card-window": "One window over the whole brain was asked for, but memory ran out: the "
        "card's window was used.",
        "fewer-passes": "Memory ran out: one pass was made instead of several mirrored ones.",
        "cpu": "The device's memory ran out: the network ran on the CPU.",
    }
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """How one study goes through the network.

    Attributes:
        choice: whose window `plan` has.
        plan: windows, and how many go at once.
        passes: mirrored passes, the identity first.
        on_cpu: whether the network runs on the CPU.
        sums_on_host: whether image and sums stay in the host's memory; on the CPU they do anyway.
        steps: rungs taken so far; halving a batch twice is two of them.
    """

    choice: WindowChoice
    plan: WindowPlan
    passes: tuple[Flip, ...]
    on_cpu: bool
    sums_on_host: bool
    steps: tuple[MemoryStep, ...] = ()

    def warnings(self) -> tuple[str, ...]:
        """A sentence for each rung that a person should know of."""
        return tuple(_WARNINGS[step] for step in self.steps if step in _WARNINGS)

    def mirroring(self, mode: Tta) -> dict[str, str | int]:
        """What became of the mode that was asked for, as reports say it."""
        done = "none" if "fewer-passes" in self.steps else mode
        return {"mode": done, "passes": len(self.passes), "averaged": AVERAGED}


def next_rung(run: Run, card: WindowPlan, *, allow_fewer_passes: bool) -> Run | None:
    """The run that needs less memory than one that had too little; None at the ladder's end.

    Args:
        run: what was tried.
        card: the card's plan.
        allow_fewer_passes: whether the caller takes a result of fewer mirrored passes.
    """
    if run.plan.batch > 1:
        smaller = replace(run.plan, batch=run.plan.batch // 2)
        return replace(run, plan=smaller, steps=(*run.steps, "smaller-batch"))
    if not run.sums_on_host and not run.on_cpu:
        return replace(run, sums_on_host=True, steps=(*run.steps, "host-sums"))
    if run.choice == "whole":
        alone = replace(card, batch=1)
        return replace(run, choice="card", plan=alone, steps=(*run.steps, "card-window"))
    if allow_fewer_passes and len(run.passes) > 1:
        # Passes go one after another: four need what eight need, only one alone needs less.
        return replace(run, passes=run.passes[:1], steps=(*run.steps, "fewer-passes"))
    if not run.on_cpu:
        return replace(run, on_cpu=True, steps=(*run.steps, "cpu"))
    return None


def used_up(run: Run) -> KernelMemoryError:
    """The error for a run after which there is no further one."""
    tried = f", also after {', '.join(run.steps)}" if run.steps else ""
    fewer = ", or allow fewer passes" if len(run.passes) > 1 else ""
    return KernelMemoryError(
        f"Memory is used up{tried}. Free some, or take a model with a smaller window or fewer "
        f"features{fewer}."
    )
