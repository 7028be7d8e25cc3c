"""One case as a strip of panels: a contrast with the truth, and the same with the prediction.

Pictures here are arrays (rows, columns, 3), uint8 sRGB, light on black like the reading room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from training.runs.palette import label_colours
from training.runs.view import bounding_box
from training.task import LabelArray, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Picture = NDArray[np.uint8]

WIDTH_INCHES: Final = 10.4
DPI: Final = 110
_BACK, _INK, _DIM = "black", "#f2f2f2", "#b0b0b0"
_TITLES = 0.52
"""Inches above the panels."""
_FILL = 0.22
_MOST_NAMES = 12


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A slice of one case.

    Args:
        title: words above the strip.
        images: by channel, (rows, columns).
        outside: where there is no body, shown black whatever the normalisation made of it.
        truth: internal labels (rows, columns).
        predicted: likewise.
        aspect: height of a voxel in the picture, in its widths.
    """

    title: str
    images: Mapping[str, NDArray[np.float32]]
    outside: NDArray[np.bool_]
    truth: LabelArray
    predicted: LabelArray
    aspect: float = 1.0


def draw_scene(scene: Scene, task: Task) -> Picture:
    """Truth beside prediction for every image; a single image is shown bare as well."""
    bare = len(scene.images) == 1
    panels: list[tuple[str, NDArray[np.float32], LabelArray | None]] = []
    for channel, image in scene.images.items():
        panels += [(channel, image, None)] if bare else []
        panels += [(f"{channel}, truth", image, scene.truth)]
        panels += [(f"{channel}, prediction", image, scene.predicted)]
    rows, columns = bounding_box(~scene.outside | (scene.truth > 0) | (scene.predicted > 0))
    height, width = scene.outside[rows, columns].shape
    side = WIDTH_INCHES / len(panels)
    tall = min(1.3 * side, max(0.5 * side, side * height * scene.aspect / width))
    figure = _figure(tall + _TITLES)
    figure.text(
        0.006, 1 - 0.17 / (tall + _TITLES), scene.title, color=_INK, fontsize=11, va="center"
    )
    for number, (title, image, labels) in enumerate(panels):
        place = (number / len(panels), 0, 0.985 / len(panels), tall / (tall + _TITLES))
        axes = figure.add_axes(place)
        axes.set_title(title, color=_INK, fontsize=9.5, pad=4)
        axes.set_axis_off()
        grey = _grey(image[rows, columns], scene.outside[rows, columns])
        axes.imshow(grey, cmap="gray", vmin=0, vmax=1, aspect=scene.aspect)
        if labels is not None:
            _draw_labels(axes, labels[rows, columns], task, scene.aspect)
    return _pixels(figure)


def draw_heading(words: str) -> Picture:
    """A line above all strips."""
    figure = _figure(0.42)
    figure.text(0.006, 0.45, words, color=_INK, fontsize=13, weight="bold", va="center")
    return _pixels(figure)


def draw_legend(task: Task, note: str = "") -> Picture:
    """What the colours mean, and a note on how to read the pictures."""
    from matplotlib.patches import Patch

    figure = _figure(0.42)
    colours = label_colours(task)
    handles = [
        Patch(facecolor=(*colours[value], 0.45), edgecolor=colours[value], label=name)
        for value, name in enumerate(task.labels[:_MOST_NAMES], start=1)
    ]
    if len(task.labels) > _MOST_NAMES:
        handles.append(Patch(facecolor=_BACK, label=f"and {len(task.labels) - _MOST_NAMES} more"))
    figure.legend(
        handles=handles, loc="center left", ncols=len(handles), frameon=False, labelcolor=_INK,
        fontsize=min(10, 80 / len(handles)), borderaxespad=0.3,
    )  # fmt: skip
    figure.text(0.994, 0.5, note, color=_DIM, fontsize=9, ha="right", va="center")
    return _pixels(figure)


def stacked(pictures: Sequence[Picture]) -> Picture:
    """One below the other."""
    return np.concatenate(pictures)


def _figure(height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, facecolor=_BACK)
    FigureCanvasAgg(figure)
    return figure


def _pixels(figure: Figure) -> Picture:
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _grey(image: NDArray[np.float32], outside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """0 to 1 between the 0.5th and 99.5th percentile of the body; 0 outside."""
    body = image[~outside]
    if not body.size:
        return np.zeros_like(image)
    low, high = np.percentile(body, (0.5, 99.5))
    scaled = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    shown: NDArray[np.float32] = scaled.astype(np.float32)
    shown[outside] = 0
    return shown


def _draw_labels(axes: Axes, labels: LabelArray, task: Task, aspect: float) -> None:
    """Translucent areas with an outline around each."""
    fill = np.zeros((*labels.shape, 4), np.float32)
    colours = label_colours(task)
    # the smallest area last: its outline lies on top of that of the area around it
    present = [value for value in colours if (labels == value).any()]
    for value in sorted(present, key=lambda value: -np.count_nonzero(labels == value)):
        mask, colour = labels == value, colours[value]
        fill[mask] = (*colour, _FILL)
        # a frame of background lets an area that touches the edge have a closed outline
        framed = np.pad(mask.astype(np.float32), 1)
        at = [np.arange(-1, length + 1) for length in labels.shape]
        axes.contour(at[1], at[0], framed, levels=[0.5], colors=[colour], linewidths=1.1)
    axes.imshow(fill, aspect=aspect, interpolation="nearest")
    axes.set(xlim=(-0.5, labels.shape[1] - 0.5), ylim=(labels.shape[0] - 0.5, -0.5))
