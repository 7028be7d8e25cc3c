"""The foot of a case sheet: what the colours mean, how large things are, how to read it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from model_core.labels import LABEL_COLOURS
from model_core.preview import Colours, write_text
from training.judge.sheet_scene import Scene
from training.task import BRATS, LabelArray, Task

BACK, INK, DIM = "#000000", "#f2f2f2", "#a8a8a8"
SHOWN_REGIONS: Final = 4
"""More are scored in the reports; a title has no room for them."""
_LONGEST: Final = 12
_LINES: Final = 5
_DRAWN_FIRST: Final = (2, 1, 3)
"""BraTS: oedema, core, enhancing tumour, so that the small ones lie on top."""
_PALETTE: Final = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0),
    (0, 114, 178),
)  # fmt: skip
"""Okabe and Ito: told apart with any common colour vision."""
_SHORT: Final[Mapping[str, str]] = {
    "NCR": "NCR, necrotic and non-enhancing core",
    "ED": "ED, oedema and infiltrated tissue",
    "ET": "ET, enhancing tumour",
}


def colours_of(task: Task) -> Colours:
    """The colour of each internal label, in the order in which they are drawn."""
    if task.labels == BRATS.labels:
        return {value: colour for value in _DRAWN_FIRST for colour in [_brats_colour(value)]}
    return {
        value: _PALETTE[(value - 1) % len(_PALETTE)] for value in range(1, len(task.labels) + 1)
    }


def region_names(task: Task) -> tuple[str, ...]:
    """The regions that a title has room for."""
    return tuple(region.name for region in task.regions)[:SHOWN_REGIONS]


def draw_legend(axes: Axes, task: Task, maps: Mapping[str, LabelArray], scene: Scene) -> None:
    """Colours, a small table of region sizes, and notes; `maps` by the columns' titles."""
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()
    _draw_colours(axes, task)
    _draw_sizes(axes, task, maps, scene)
    _write_notes(axes, scene)


def _brats_colour(value: int) -> tuple[int, int, int]:
    return next(colour for label, colour in LABEL_COLOURS.items() if label == value)


def shortened(name: str) -> str:
    """A name that fits a narrow column."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _draw_colours(axes: Axes, task: Task) -> None:
    """Two columns of five; what has no room is counted."""
    colours, brats = colours_of(task), task.labels == BRATS.labels
    for number, name in enumerate(task.labels[: 2 * _LINES]):
        column, line = divmod(number, _LINES)
        x, y = 0.155 * column, 0.80 - 0.15 * line
        red, green, blue = (part / 255 for part in colours[number + 1])
        axes.add_patch(Rectangle((x, y - 0.045), 0.014, 0.09, color=(red, green, blue)))
        write_text(axes, x + 0.02, y, _SHORT[name] if brats else shortened(name), fontsize=9)
    if len(task.labels) > 2 * _LINES:
        more = f"and {len(task.labels) - 2 * _LINES} more"
        write_text(axes, 0, 0.05, more, fontsize=8.5, color=DIM)


def _draw_sizes(axes: Axes, task: Task, maps: Mapping[str, LabelArray], scene: Scene) -> None:
    """Regions across, label columns down; millilitres, or pixels of a picture."""
    unit = 1.0 if scene.picture else math.prod(scene.spacing) / 1000
    left, width = 0.33, 0.075
    write_text(axes, left, 0.80, "pixels" if scene.picture else "mL", fontsize=9, color=DIM)
    for column, region in enumerate(region_names(task)):
        x = left + 0.13 + width * (column + 0.6)
        write_text(axes, x, 0.80, shortened(region), ha="right", fontsize=9, color=DIM)
        for line, labels in enumerate(maps.values()):
            size = np.count_nonzero(task.mask(labels, region)) * unit
            text = f"{size:.0f}" if scene.picture else f"{size:.{1 if size >= 10 else 2}f}"
            write_text(axes, x, 0.65 - 0.15 * line, text, ha="right", fontsize=9)
    for line, name in enumerate(maps):
        write_text(axes, left, 0.65 - 0.15 * line, name, fontsize=9)


def _write_notes(axes: Axes, scene: Scene) -> None:
    notes = (
        [] if scene.picture else ["Radiological convention: the patient's right is on the left."]
    )
    notes.append(f"Labels over {scene.panels[scene.under].title}.")
    if "truth" in scene.maps:
        notes.append("Dice: of the whole " + ("picture." if scene.picture else "volume."))
    if "postprocessed" in scene.maps:
        notes.append("Pink line: changed by post-processing.")
    notes.append("Not a medical device.")
    for line, note in enumerate(notes):
        write_text(axes, 1.0, 0.80 - 0.15 * line, note, ha="right", fontsize=8.5, color=DIM)
