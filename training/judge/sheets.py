"""Case sheets: one picture per case, its slices by contrasts, truth and predictions.

Radiological convention: the patient's right is on the left, as if looked at from the feet. A
sheet carries no word from a header or a file's name; what it calls the case is the caller's.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from model_core.imaging.atomic import write_atomically
from model_core.imaging.volume import Volume
from model_core.metrics import dice
from model_core.preview import fill, outline, write_text
from training.judge.sheet_frame import (
    FOOT,
    LEFT,
    LETTERS_PER_INCH,
    Frame,
    column_inches,
    frame_of,
    visible,
)
from training.judge.sheet_legend import (
    BACK,
    DIM,
    INK,
    colours_of,
    draw_legend,
    region_names,
    shortened,
)
from training.judge.sheet_scene import Panel, Row, Scene, arrange, cut_of
from training.task import LabelArray, Task

KINDS: Final[Mapping[str, str]] = {
    "truth": "Truth",
    "raw": "Prediction",
    "postprocessed": "Post-processed",
}
"""The label columns, in order, and what they are called."""
_DPI: Final = 110
_CHANGED = "#ff4fd8"
_HALO: Final = [withStroke(linewidth=2.2, foreground="black")]
"""Keeps letters readable on bright tissue."""


def draw_sheet(
    images: Sequence[Volume],
    task: Task,
    *,
    prediction: LabelArray,
    postprocessed: LabelArray | None = None,
    truth: LabelArray | None = None,
    title: str = "",
) -> Figure:
    """Draw the sheet of one case.

    Rows are the axial, coronal and sagittal slices with most tumour (of the truth, if given), and
    the axial slice that the corrections changed most; a picture has one row. Columns are the
    channels (four at most), the truth, the prediction and the post-processed prediction, the last
    with a line around what was changed.

    Args:
        images: one volume per channel of the task, on one grid; any orientation and spacing, or
            pictures of shape (1, H, W).
        task: names of channels, labels and regions.
        prediction: internal labels (X, Y, Z) on the images' grid, as the network gave them.
        postprocessed: the same after corrections; its changes are outlined.
        truth: the same as drawn by an expert; Dice per region is then in the titles.
        title: what the sheet calls the case, e.g. its `training.naming.shown_names`; never taken
            from a file.

    Raises:
        InputError: images or label maps that are not on one grid.
    """
    given = {"truth": truth, "raw": prediction, "postprocessed": postprocessed}
    maps = {kind: labels for kind, labels in given.items() if labels is not None}
    scene = arrange(images, task.channels, maps)
    titles = [panel.title for panel in scene.panels]
    titles += [_label_title(scene, kind, task) for kind in scene.maps]
    frame = frame_of(scene, max(text.count("\n") + 1 for text in titles))
    figure = Figure(figsize=(frame.width, frame.height), dpi=_DPI, facecolor=BACK)
    FigureCanvasAgg(figure)
    _draw_rows(figure, frame, scene, task)
    _write_titles(figure, titles)
    place = frame.place(LEFT, frame.height - FOOT, frame.width - LEFT - 0.1, FOOT)
    draw_legend(figure.add_axes(place), task, {KINDS[kind]: maps[kind] for kind in maps}, scene)
    if title:
        x, y = LEFT / frame.width, 1 - 0.14 / frame.height
        figure.text(x, y, title, color=INK, fontsize=12, weight="bold", va="center")
    return figure


def write_sheet(path: Path, figure: Figure) -> None:
    """Write a drawn sheet as PNG: whole, or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=BACK, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())


# ---------------------------------------------------------------- drawing


def _draw_rows(figure: Figure, frame: Frame, scene: Scene, task: Task) -> None:
    kinds = [None] * len(scene.panels) + list(scene.maps)
    for number, row in enumerate(scene.rows):
        for column, kind in enumerate(kinds):
            axes = figure.add_axes(frame.panel(number, column))
            panel = scene.panels[scene.under if kind else column]
            _draw_slice(axes, scene, row, panel)
            if kind:
                _draw_labels(axes, scene, row, kind, task)
            _show_part(axes, scene, row, frame)
            _write_edges(axes, row, first=column == 0)
        _write_row(figure.axes[-len(kinds)], row, frame)
        _scale_bar(figure.axes[-len(kinds)], frame, scene)


def _write_titles(figure: Figure, titles: Sequence[str]) -> None:
    """Over the panels of the first row."""
    for axes, title in zip(figure.axes, titles, strict=False):
        axes.set_title(title, color=INK, fontsize=9, pad=4, linespacing=1.35)


def _draw_slice(axes: Axes, scene: Scene, row: Row, panel: Panel) -> None:
    values = cut_of(panel.array, row)
    look: dict[str, Any] = {"extent": _extent(scene, row, values), "interpolation": "bilinear"}
    if values.ndim == 2:
        look |= {"cmap": "gray", "vmin": panel.low, "vmax": panel.high}
    axes.imshow(values, **look)


def _draw_labels(axes: Axes, scene: Scene, row: Row, kind: str, task: Task) -> None:
    labels = cut_of(scene.maps[kind], row)
    colours = colours_of(task)
    across, down = scene.spacing[row.plane.columns], scene.spacing[row.plane.rows]
    extent = _extent(scene, row, labels)
    axes.imshow(fill(labels, colours), extent=extent, interpolation="nearest")
    outline(axes, labels, across, down, colours)
    if kind == "postprocessed":
        changed = labels != cut_of(scene.maps["raw"], row)
        _outline_changes(axes, changed, across, down)


def _outline_changes(axes: Axes, changed: NDArray[np.bool_], across: float, down: float) -> None:
    if not changed.any() or min(changed.shape) < 2:
        return
    columns, rows = np.arange(changed.shape[1]) * across, np.arange(changed.shape[0]) * down
    axes.contour(
        columns, rows, changed.astype(np.float32), levels=[0.5], colors=[_CHANGED], linewidths=1.3
    )


def _extent(scene: Scene, row: Row, values: NDArray[Any]) -> Any:
    """Where a whole slice lies, in mm with voxel centres at multiples of the spacing."""
    across, down = scene.spacing[row.plane.columns], scene.spacing[row.plane.rows]
    height, width = values.shape[:2]
    return (-across / 2, (width - 0.5) * across, (height - 0.5) * down, -down / 2)


def _show_part(axes: Axes, scene: Scene, row: Row, frame: Frame) -> None:
    """The visible box in the middle of the panel, at the sheet's one scale."""
    left, right, top, bottom = visible(scene, row)
    spare = (frame.column / frame.inches_per_mm - (right - left)) / 2
    axes.set(xlim=(left - spare, right + spare), ylim=(bottom, top))
    axes.set_axis_off()


def _write_edges(axes: Axes, row: Row, *, first: bool) -> None:
    """The letters of the patient's sides; all four on the first panel, else left and right."""
    places = ((0.015, 0.5, "left"), (0.985, 0.5, "right"), (0.5, 0.955, "center"),
              (0.5, 0.045, "center"))  # fmt: skip
    for (x, y, side), letter in list(zip(places, row.plane.edges, strict=True))[
        : 4 if first else 2
    ]:
        write_text(axes, x, y, letter, ha=side, color=INK, fontsize=8.5, path_effects=_HALO)


def _write_row(axes: Axes, row: Row, frame: Frame) -> None:
    x = -0.16 / frame.column
    write_text(axes, x, 0.5, row.title, ha="center", rotation=90, color=DIM, fontsize=8)


def _scale_bar(axes: Axes, frame: Frame, scene: Scene) -> None:
    """A bar of a round length, about a quarter of the panel, lower left."""
    length = _round_length(frame.column / frame.inches_per_mm / 4)
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    x, y = left + 0.03 * (right - left), bottom + 0.05 * (top - bottom)
    bar, *_ = axes.plot([x, x + length], [y, y], color=INK, linewidth=2, solid_capstyle="butt")
    bar.set_path_effects([withStroke(linewidth=3.5, foreground="black")])
    unit = "px" if scene.picture else "mm"
    axes.annotate(
        f"{length:g} {unit}",
        (x, y),
        (0, 3),
        textcoords="offset points",
        color=INK,
        fontsize=7.5,
        path_effects=_HALO,
    )


def _round_length(wanted: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, … that is no longer than wanted."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return float(next(step * power for step in (5, 2, 1) if step * power <= wanted))


def _label_title(scene: Scene, kind: str, task: Task) -> str:
    """What the column is, and how well it agrees with the truth in the whole volume."""
    name = KINDS[kind]
    if kind == "postprocessed":
        changed = int(np.count_nonzero(scene.maps[kind] != scene.maps["raw"]))
        name += f" ({_amount(changed, scene)} changed)" if changed else " (unchanged)"
    if kind == "truth" or "truth" not in scene.maps:
        return name
    labels, truth = scene.maps[kind], scene.maps["truth"]
    lines = [name, "Dice"]
    for region in region_names(task):
        score = dice(task.mask(labels, region), task.mask(truth, region))
        words = f"  {shortened(region)} {score:.3f}"
        if len(lines[-1] + words) > LETTERS_PER_INCH * column_inches(scene):
            lines.append("")
        lines[-1] = (lines[-1] + words).strip()
    return "\n".join(lines)


def _amount(voxels: int, scene: Scene) -> str:
    """A number of voxels as a volume, pixels as such."""
    if scene.picture:
        return f"{voxels} px"
    return f"{voxels * math.prod(scene.spacing) / 1000:.2g} mL"
