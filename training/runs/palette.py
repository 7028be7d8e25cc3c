"""Colours that any common colour vision tells apart, and the marks that say the same in grey.

The palette is Okabe and Ito's, without its yellow on white paper and without black, which is kept
for means.
"""

from __future__ import annotations

from typing import Any, Final

from model_core.labels import LABEL_COLOURS
from model_core.types import Label
from training.task import BRATS, Task

LINES: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""On white."""
MARKS: Final = ("o", "s", "^", "D", "v", "P")
_AREAS: Final = ("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
"""Over a grey image."""


def line_style(index: int) -> dict[str, Any]:
    """Colour and marker of the region or run number `index` (0, 1, …)."""
    return {"color": LINES[index % len(LINES)], "marker": MARKS[index % len(MARKS)]}


def label_colours(task: Task) -> dict[int, tuple[float, float, float]]:
    """RGB (0 to 1) of each internal label of `task`."""
    if task.labels == BRATS.labels:
        return {int(label): _unit(LABEL_COLOURS[label]) for label in Label if label}
    return {
        value: _unit(bytes.fromhex(_AREAS[(value - 1) % len(_AREAS)][1:]))
        for value in range(1, len(task.labels) + 1)
    }


def _unit(rgb: tuple[int, int, int] | bytes) -> tuple[float, float, float]:
    red, green, blue = rgb
    return red / 255, green / 255, blue / 255
