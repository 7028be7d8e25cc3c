"""Numbers of a run in the order of its steps; what a record lacks is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.runs.run_folder import RunFolder

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One validation on the way.

    Args:
        step: after which it was made.
        mean: Dice per region, mean of the cases.
        cases: Dice per region of each case, by its shown name.
        score: what "best" means: the mean over cases and regions.
    """

    step: int
    mean: Mapping[str, float]
    cases: Mapping[str, Mapping[str, float | None]]
    score: float


def evaluations(folder: RunFolder) -> tuple[Evaluation, ...]:
    """Every evaluation that has a score, in order."""
    found = []
    for line in folder.records("validation"):
        mean = {name: float(v) for name, v in (line.get("mean") or {}).items() if v is not None}
        score = line.get("score")
        if score is None and mean:
            score = sum(mean.values()) / len(mean)
        if score is not None:
            found.append(
                Evaluation(
                    step=int(line.get("step") or 0),
                    mean=mean,
                    cases=line.get("cases") or {},
                    score=float(score),
                )
            )
    return tuple(found)


def best_of(found: Sequence[Evaluation]) -> Evaluation | None:
    """The one with the highest score, the earlier on a tie, as the trainer keeps it."""
    return max(found, key=lambda one: one.score, default=None)


def column(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[Values, Values]:
    """Steps and values of one field; lines that lack it, or hold no number, are left out."""
    pairs = [
        (float(line["step"]), float(line[name]))
        for line in lines
        if line.get("step") is not None and isinstance(line.get(name), int | float)
    ]
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def pseudo_dice(folder: RunFolder) -> dict[str, tuple[Values, Values]]:
    """Steps and values per class, and of the smoothed mean under ``""``; empty if none recorded.

    An epoch without a step is counted: the first is 1.
    """
    lines = [
        {"step": line.get("step") or number, **_flat(line)}
        for number, line in enumerate(folder.records("epoch"), start=1)
    ]
    names = dict.fromkeys(name for line in lines for name in line if name != "step")
    columns = {name: column(lines, name) for name in names}
    return {name: values for name, values in columns.items() if values[0].size}


def smoothed(values: Values, span: int | None = None) -> Values:
    """Exponential mean over about `span` values (default: a thirtieth of them, at least 5)."""
    span = span or max(5, len(values) // 30)
    keep = 1 - 2 / (span + 1)
    out = np.empty_like(values)
    total = weight = 0.0
    for index, value in enumerate(values):
        total, weight = keep * total + value, keep * weight + 1
        out[index] = total / weight  # the first values are no zeros in disguise
    return out


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
    """The pseudo-Dice of one epoch by class; the smoothed one under ``""``."""
    raw, ema = line.get("pseudo_dice"), line.get("ema_pseudo_dice", line.get("average"))
    if isinstance(raw, list):
        raw = {str(number): value for number, value in enumerate(raw, start=1)}
    flat = dict(raw) if isinstance(raw, Mapping) else {"mean": raw}
    if isinstance(ema, Mapping):
        ema = ema.values()
    if isinstance(ema, list | tuple) or not isinstance(ema, int | float | None):
        known = [value for value in ema if value is not None]
        ema = sum(known) / len(known) if known else None
    return {**flat, "": ema}
