"""One measurement of ``segmamba bench``: what it is of, how it is timed, and what becomes of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Final

from model_core.errors import SegMambaError
from model_core.inference.accelerator import Accelerator
from model_core.inference.retry import free_memory, is_out_of_memory

Figure = float | int | str
MOST_SECONDS: Final = 20.0
"""No further round of a measurement is begun after so long."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a measurement gave.

    Attributes:
        seconds: of each run that counts.
        figures: anything else, by name.
        agrees: whether what was computed is right, as far as that was looked at.
    """

    seconds: tuple[float, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    agrees: bool = True


@dataclass(frozen=True, kw_only=True)
class Step:
    """A measurement that can be made.

    Attributes:
        part: the table that it belongs to.
        subject: what is measured, e.g. a shape or a network.
        way: how, e.g. a backend and a precision.
        measure: makes it.
    """

    part: str
    subject: str
    way: str
    measure: Callable[[], Measured]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measurement that was made, or why it could not be.

    Attributes:
        part: as in `Step`.
        subject: as in `Step`.
        way: as in `Step`.
        seconds: min, median, 90th percentile and count; nothing where no time was taken.
        figures: anything else.
        problem: what went wrong; empty where nothing did.
    """

    part: str
    subject: str
    way: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    problem: str = ""


def made(step: Step, accelerator: Accelerator) -> Row:
    """Make a measurement; whatever fails is a row that says so, and costs no other row."""
    row = Row(part=step.part, subject=step.subject, way=step.way)
    try:
        found = step.measure()
    except Exception as error:  # noqa: BLE001 - a kernel may fail in any way; the others still count
        kind = "" if isinstance(error, SegMambaError) else f"{type(error).__name__}: "
        text = "memory is used up" if is_out_of_memory(error) else kind + _line(error)
        return replace(row, problem=text)
    finally:
        free_memory(accelerator.device)
    problem = "" if found.agrees else "differs by more than it may"
    return replace(row, seconds=spread(found.seconds), figures=found.figures, problem=problem)


def timed(
    work: Callable[[], object], accelerator: Accelerator, *, warm_up: int, rounds: int
) -> tuple[float, ...]:
    """Seconds of each run, the device's work included.

    Args:
        work: what is run.
        accelerator: waited for before and after each run.
        warm_up: runs before the first that counts.
        rounds: runs that count, at most; at least one is made.
    """
    for _ in range(warm_up):
        work()
    seconds: list[float] = []
    while len(seconds) < rounds and sum(seconds) < MOST_SECONDS:
        accelerator.synchronise()
        began = perf_counter()
        work()
        accelerator.synchronise()
        seconds.append(perf_counter() - began)
    return tuple(seconds)


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Minimum, median, 90th percentile (nearest rank) and count; nothing of nothing."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    return {
        "min": ordered[0],
        "median": statistics.median(ordered),
        "p90": ordered[-(-9 * len(ordered) // 10) - 1],
        "count": len(ordered),
    }


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
