"""Which window a run takes: the model card's, or one over the whole brain box.

One window over the whole box sees every voxel once where the card's overlapping windows see it up
to eight times, so it is several times faster. It gives another result, because scans are longer
and norms take their statistics from all of the brain; `docs/concepts/windows.md` has what that cost
in Dice. So it is taken only when asked for, and only where the memory allows it.

Pure integers, no tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from model_core.inference.memory import MIB, NetworkSize, StudySize, peak_bytes, too_large
from model_core.inference.windows import WindowPlan
from model_core.types import WindowChoice


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The windows that a network takes.

    Attributes:
        multiple: every side is a multiple of this.
        num_slices: where a network cuts the tokens of its stages (at 1/2, 1/4, ... of the window's
            sides) into fixed numbers of runs: those numbers. Each must divide its stage's tokens.
    """

    multiple: int = 1
    num_slices: tuple[int, ...] = ()

    def allows(self, window: Sequence[int]) -> bool:
        """Whether the network takes this window."""
        if any(side % self.multiple for side in window):
            return False
        tokens = [prod(side >> stage for side in window) for stage in range(1, 5)]
        return all(count % runs == 0 for count, runs in zip(tokens, self.num_slices, strict=False))

    def window_over(self, shape: Sequence[int]) -> tuple[int, ...] | None:
        """The smallest window of the network over `shape`; None if none is near.

        At least two multiples a side, so that a norm finds more than one voxel at the deepest
        level.
        """
        step = self.multiple
        least = [max(-(-side // step), 1 if step == 1 else 2) for side in shape]
        near = (
            tuple((side + more) * step for side, more in zip(least, extra, strict=True))
            for extra in product((0, 1), repeat=len(shape))
        )
        return min(filter(self.allows, near), key=prod, default=None)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The plan of a run.

    Attributes:
        choice: what was taken.
        plan: with its window.
        warnings: why it is not what was asked for.
    """

    choice: WindowChoice
    plan: WindowPlan
    warnings: tuple[str, ...] = ()


def choose_plan(
    wanted: WindowChoice,
    card: WindowPlan,
    rule: Rule,
    *,
    network: NetworkSize,
    study: StudySize,
    limit: int | None,
) -> Chosen:
    """The plan that keeps the memory limit, as near as possible to what is wanted.

    In this order: one window over the box, if wanted; the card's plan; the card's plan one window
    at a time. The card's window itself is never made smaller, for that would be another result.

    Args:
        wanted: what the caller asked for.
        card: the card's plan, its window fit for the network.
        rule: the windows that the network takes.
        network: its size.
        study: its size.
        limit: bytes that the process may hold; None where nobody counts.

    Raises:
        MemoryLimitError: the limit is too small for the card's window.
    """
    warnings: tuple[str, ...] = ()
    if wanted == "whole":
        window = rule.window_over(study.image)
        whole = None if window is None else replace(card, window=window, batch=1)
        if whole is not None and _fits(network, study, whole, limit):
            return Chosen(choice="whole", plan=whole)
        warnings = (
            _not_whole(None if whole is None else peak_bytes(network, study, whole), limit),
        )
    for plan in (card, replace(card, batch=1)):
        if _fits(network, study, plan, limit):
            return Chosen(choice="card", plan=plan, warnings=warnings)
    assert limit is not None, "without a limit everything fits"
    alone = replace(card, batch=1)
    half = None if network.half else peak_bytes(replace(network, half=True), study, alone)
    raise too_large(peak_bytes(network, study, alone), limit, half)


def _fits(network: NetworkSize, study: StudySize, plan: WindowPlan, limit: int | None) -> bool:
    return limit is None or peak_bytes(network, study, plan) <= limit


def _not_whole(needed: int | None, limit: int | None) -> str:
    if needed is None or limit is None:
        why = "no window that the network takes is near the brain's size"
    else:
        why = f"it would need about {needed // MIB} MiB, and {limit // MIB} MiB are allowed"
    return f"One window over the whole brain was asked for, but {why}: the card's window was used."
