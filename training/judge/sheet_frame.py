"""Where the panels of a case sheet lie: one scale for all, in inches from the upper left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from training.judge.sheet_scene import Row, Scene

_COLUMN_INCHES: Final = 2.45
_WIDE_INCHES: Final = 3.6
"""Of a picture's columns, and of a volume's where there are few."""
_NARROWEST_INCHES: Final = 9.0
"""The foot needs as much."""
LETTERS_PER_INCH: Final = 14
LEFT, _HEAD, _LINE, FOOT, _GAP = 0.32, 0.36, 0.175, 1.3, 0.03
_TALLEST: Final = 1.5
"""Height of a row in columns; taller slices are drawn smaller."""


@dataclass(frozen=True)
class Frame:
    """Where the panels lie, in inches from the upper left."""

    head: float
    column: float
    rows: tuple[float, ...]
    inches_per_mm: float
    width: float
    height: float

    def panel(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Place of a panel in fractions of the figure."""
        x = LEFT + column * (self.column + _GAP)
        y = self.head + sum(self.rows[:row]) + row * _GAP
        return self.place(x, y, self.column, self.rows[row])

    def place(
        self, x: float, y: float, width: float, height: float
    ) -> tuple[float, float, float, float]:
        """Inches from the upper left as matplotlib's fractions from the lower left."""
        lower = 1 - (y + height) / self.height
        return x / self.width, lower, width / self.width, height / self.height


def frame_of(scene: Scene, lines: int) -> Frame:
    """One scale for all panels: each row as high as its slice, each column as the widest one.

    Titles have `lines` lines at most.
    """
    sizes = [visible(scene, row) for row in scene.rows]
    widest = max(right - left for left, right, _, _ in sizes)
    count = len(scene.panels) + len(scene.maps)
    column = column_inches(scene)
    tallest = max(bottom - top for _, _, top, bottom in sizes)
    scale = min(column / widest, _TALLEST * column / tallest)
    head = _HEAD + lines * _LINE
    rows = tuple((bottom - top) * scale for _, _, top, bottom in sizes)
    return Frame(
        head=head,
        column=column,
        rows=rows,
        inches_per_mm=scale,
        width=max(LEFT + count * (column + _GAP), _NARROWEST_INCHES),
        height=head + sum(rows) + len(rows) * _GAP + FOOT,
    )


def column_inches(scene: Scene) -> float:
    """Inches of a column."""
    share = _NARROWEST_INCHES / (len(scene.panels) + len(scene.maps))
    return _WIDE_INCHES if scene.picture else min(max(_COLUMN_INCHES, share), _WIDE_INCHES)


def visible(scene: Scene, row: Row) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of a panel in mm of its slice."""
    plane = row.plane
    (left, right), (top, bottom) = scene.box[plane.columns], scene.box[plane.rows]
    across, down = scene.spacing[plane.columns], scene.spacing[plane.rows]
    return (left - 0.5) * across, (right + 0.5) * across, (top - 0.5) * down, (bottom + 0.5) * down
