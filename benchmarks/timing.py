"""How a time is taken: warm-up, alternating rounds, and the spread of what came out."""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How often something is run.

    Args:
        warmup: runs before the first that counts.
        rounds: runs that count, at most.
        seconds: no further round is begun once a way's rounds have taken so long; at least one
            is made.
    """

    warmup: int = 1
    rounds: int = 5
    seconds: float = 60.0


def spread(seconds: Sequence[float]) -> dict[str, float | int]:
    """Minimum, median, 90th percentile (nearest rank) and count of some times."""
    ordered = sorted(seconds)
    rank = -(-9 * len(ordered) // 10) - 1
    return {
        "min": ordered[0],
        "median": statistics.median(ordered),
        "p90": ordered[rank],
        "count": len(ordered),
    }


def quantile(seconds: Sequence[float], share: float) -> float:
    """The nearest-rank quantile, e.g. of share 0.99."""
    ordered = sorted(seconds)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def time_once(work: Work) -> float:
    """Seconds of one run."""
    began = perf_counter()
    work()
    return perf_counter() - began


def alternate(ways: Mapping[str, Work], plan: Plan) -> dict[str, list[float]]:
    """Time several ways of doing the same, one run of each in turn: A B C A B C.

    So a machine that slows down, or a neighbour, meets every way alike.

    Returns:
        Seconds of every run that counts, by way.
    """
    for work in ways.values():
        for _ in range(plan.warmup):
            work()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(plan.rounds):
        gc.collect()
        for name, work in ways.items():
            if not seconds[name] or sum(seconds[name]) < plan.seconds:
                seconds[name].append(time_once(work))
    return seconds
