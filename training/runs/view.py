"""Which slice of a volume a picture shows, and which way round.

A picture is radiological where the body has directions: the patient's right is on the left, the
front (axial) or the head (coronal, sagittal) is up. Photographs and plain images stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PAIRS = ("RL", "AP", "SI")
_ROWS = ("SI", "AP")
"""The first of these axes that lies in the slice runs down the picture."""
_START = {"RL": "R", "AP": "A", "SI": "S"}
"""Direction of the picture's left or upper edge."""
_LEFT = {"RL": "the patient's right", "AP": "the patient's front"}


@dataclass(frozen=True)
class View:
    """A cut across `axis`; the array axes `rows` and `columns`, and whether they are turned."""

    axis: int
    rows: int
    columns: int
    turn_rows: bool = False
    turn_columns: bool = False
    left: str = ""
    """What lies at the picture's left edge, if the body has sides there."""

    def cut(self, volume: NDArray[Any], index: int) -> NDArray[Any]:
        """(X, Y, Z) → the slice `index` as (rows, columns)."""
        section = np.take(volume, index, axis=self.axis)
        if self.rows > self.columns:
            section = section.T
        turned: NDArray[Any] = section[
            :: -1 if self.turn_rows else 1, :: -1 if self.turn_columns else 1
        ]
        return turned


PLAIN = View(axis=0, rows=1, columns=2)
"""Of a picture (1, H, W)."""


def axial_view(orientation: str) -> View:
    """The axial slices of volumes in `orientation` (e.g. ``SPL``: where each axis points to)."""
    return view_across(next(a for a, code in enumerate(orientation) if code in "SI"), orientation)


def view_across(axis: int, orientation: str) -> View:
    """The slices across array axis `axis` of volumes in `orientation`."""
    pairs = [next(pair for pair in _PAIRS if code in pair) for code in orientation]
    inside = [a for a in range(3) if a != axis]
    rows = next(a for pair in _ROWS for a in inside if pairs[a] == pair)
    columns = next(a for a in inside if a != rows)
    return View(
        axis=axis,
        rows=rows,
        columns=columns,
        # an axis points to its code: it starts at the opposite end
        turn_rows=orientation[rows] == _START[pairs[rows]],
        turn_columns=orientation[columns] == _START[pairs[columns]],
        left=_LEFT[pairs[columns]],
    )


def fullest_slice(mask: NDArray[np.bool_], axis: int) -> int:
    """The slice across `axis` with most of `mask` (X, Y, Z); the middle one if it is empty."""
    areas = mask.sum(axis=tuple(a for a in range(3) if a != axis))
    return int(areas.argmax()) if areas.any() else mask.shape[axis] // 2


def bounding_box(mask: NDArray[np.bool_], margin: int = 4) -> tuple[slice, slice]:
    """Rows and columns that hold `mask` (rows, columns), with a margin; all if it is empty."""
    box = []
    for axis in (0, 1):
        hit = np.flatnonzero(mask.any(axis=1 - axis))
        if not hit.size:
            return slice(None), slice(None)
        box.append(slice(max(0, int(hit[0]) - margin), int(hit[-1]) + 1 + margin))
    return box[0], box[1]
