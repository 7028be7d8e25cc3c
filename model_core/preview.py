"""A picture of a segmentation: three planes through the tumour, two contrasts, volumes in words.

Radiological convention: the patient's right is on the left of the picture, as if looked at from
the feet; letters at the edges say so (R, L, A, P, S, I). The picture carries no word from a header
or a file name. Colours can be told apart with any common colour vision (`LABEL_COLOURS`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from model_core.errors import InputError
from model_core.imaging.grid import Grid
from model_core.imaging.study import Study
from model_core.imaging.volume import Volume
from model_core.labels import (
    LABEL_COLOURS,
    LABEL_MEANINGS,
    LABEL_NAMES,
    REGIONS,
    region_mask,
    volumes_ml,
)
from model_core.types import Contrast, Label

VIEW_ORIENTATION: Final = "LPI"
"""Axes to the patient's left, posterior, inferior: shown unturned, this is radiological."""
SHOWN: Final[tuple[Contrast, ...]] = ("flair", "t1ce")
TUMOUR_LABELS: Final = (Label.ED, Label.NCR, Label.ET)
Colours = Mapping[int, tuple[int, int, int]]
"""8-bit sRGB of each label, in the order in which they are drawn."""
TUMOUR_COLOURS: Final[Colours] = {label: LABEL_COLOURS[label] for label in TUMOUR_LABELS}
CONTRAST_TITLES: Final[Mapping[Contrast, str]] = {"flair": "FLAIR", "t1ce": "T1 with contrast"}
MARGIN_MM: Final = 13.0
_FILL: Final = 0.28
_BACK, _INK, _DIM = "#000000", "#f2f2f2", "#a8a8a8"


@dataclass(frozen=True)
class Plane:
    """One way to cut: array axes in `VIEW_ORIENTATION`, and the letters at the picture's edges."""

    name: str
    across: int
    rows: int
    columns: int
    edges: tuple[str, str, str, str]
    """Left, right, top, bottom."""
    normal: str
    """Both letters of the direction across the plane."""


PLANES: Final = (
    Plane("axial", 2, 1, 0, ("R", "L", "A", "P"), "IS"),
    Plane("coronal", 1, 2, 0, ("R", "L", "S", "I"), "PA"),
    Plane("sagittal", 0, 2, 1, ("A", "P", "S", "I"), "LR"),
)


@dataclass(frozen=True)
class _Scene:
    """What the panels share: turned arrays, the cut through them, and the visible box."""

    images: Mapping[Contrast, NDArray[Any]]
    labels: Volume
    native: Grid
    cut: tuple[int, int, int]
    middle: tuple[float, float, float]
    side_mm: float


def render_preview(
    study: Study, labels: NDArray[np.uint8], path: Path, *, model: str | None = None
) -> None:
    """Draw a preview and write it as PNG.

    Args:
        study: the four volumes; any orientation and spacing.
        labels: (X, Y, Z) in the internal numbering on the study's grid; may be empty.
        path: where the PNG goes, whatever the suffix.
        model: name of the model, shown if given.

    Raises:
        InputError: the labels are not on the study's grid.
    """
    figure = draw_preview(study, labels, model=model)
    with path.open("wb") as file:
        figure.savefig(file, format="png", facecolor=_BACK, metadata={"Software": None})


def draw_preview(study: Study, labels: NDArray[np.uint8], *, model: str | None = None) -> Figure:
    """Draw FLAIR and contrast-enhanced T1 with the labels; see `render_preview`.

    Raises:
        InputError: the labels are not on the study's grid.
    """
    if labels.shape != study.native.shape:
        raise InputError(
            "labels",
            expected=f"the study's shape {study.native.shape}",
            got=f"{labels.shape}",
            way_out="Hand over the label map that was made from this study.",
        )
    scene = _arrange(study, labels)
    figure = Figure(figsize=(13.2, 7.2), dpi=110, facecolor=_BACK)
    FigureCanvasAgg(figure)
    _draw_panels(figure, scene)
    _draw_legend(figure, volumes_ml(labels, study.native.grid.voxel_ml), model)
    return figure


def _arrange(study: Study, labels: NDArray[np.uint8]) -> _Scene:
    """Turn everything, choose the cut, and find the box of the head that will be visible."""
    turned = Volume(labels, study.native.affine).reoriented(VIEW_ORIENTATION)
    images = {c: study.volumes[c].reoriented(VIEW_ORIENTATION).array for c in SHOWN}
    box = mask_box(images[SHOWN[0]] != 0)
    spacing = turned.spacing_mm
    x, y, z = ((low + high) / 2 * mm for (low, high), mm in zip(box, spacing, strict=True))
    extent = [(high - low + 1) * mm for (low, high), mm in zip(box, spacing, strict=True)]
    return _Scene(
        images=images,
        labels=turned,
        native=study.native.grid,
        cut=_cut(turned.array, box),
        middle=(x, y, z),
        side_mm=max(extent) + 2 * MARGIN_MM,
    )


def mask_box(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of a mask along each axis; the whole array where it is empty."""
    box = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append((int(hit[0]), int(hit[-1])) if hit.size else (0, mask.shape[axis] - 1))
    return box


def _cut(labels: NDArray[np.uint8], box: list[tuple[int, int]]) -> tuple[int, int, int]:
    """Along each axis the slice with the largest tumour area, or the middle of the head."""
    tumour = region_mask(labels, "WT")
    if not tumour.any():
        x, y, z = ((low + high) // 2 for low, high in box)
        return x, y, z
    areas = (tumour.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3))
    x, y, z = (int(area.argmax()) for area in areas)
    return x, y, z


def _draw_panels(figure: Figure, scene: _Scene) -> None:
    width, height, top = 0.262, 0.465, 0.955
    for row, contrast in enumerate(SHOWN):
        image = scene.images[contrast]
        ceiling = brightest(image)
        for column, plane in enumerate(PLANES):
            place = (0.004 + column * (width + 0.002), top - (row + 1) * height, width, height)
            axes = figure.add_axes(place)
            _draw_slice(axes, scene, plane, image, ceiling)
            if row == 0:
                axes.set_title(_plane_title(scene, plane), color=_INK, fontsize=10, pad=4)
        axes = figure.axes[row * len(PLANES)]
        write_text(axes, 0.015, 0.975, CONTRAST_TITLES[contrast], va="top", fontsize=9.5)


def brightest(image: NDArray[Any]) -> float:
    """The brightest shown value: nearly the highest of the head, so that one voxel cannot rule."""
    values = image[image != 0]
    return float(np.percentile(values, 99.7)) if values.size else 1.0


def _draw_slice(
    axes: Axes, scene: _Scene, plane: Plane, image: NDArray[Any], ceiling: float
) -> None:
    """One panel: the slice, the labels over it, the letters at its edges. Axes are in mm."""
    spacing = scene.labels.spacing_mm
    across, down = spacing[plane.columns], spacing[plane.rows]
    grey = section(image, plane, scene.cut)
    labels = section(scene.labels.array, plane, scene.cut)
    extent = (-across / 2, (grey.shape[1] - 0.5) * across, (grey.shape[0] - 0.5) * down, -down / 2)
    axes.imshow(grey, cmap="gray", vmin=0.0, vmax=ceiling, extent=extent, interpolation="bilinear")
    axes.imshow(fill(labels), extent=extent, interpolation="nearest")
    outline(axes, labels, across, down)
    x, y, half = scene.middle[plane.columns], scene.middle[plane.rows], scene.side_mm / 2
    axes.set(xlim=(x - half, x + half), ylim=(y + half, y - half), aspect="equal")
    axes.set_axis_off()
    edges = (
        (0.012, 0.5, "left"),
        (0.988, 0.5, "right"),
        (0.5, 0.97, "center"),
        (0.5, 0.03, "center"),
    )
    for (fx, fy, side), letter in zip(edges, plane.edges, strict=True):
        write_text(axes, fx, fy, letter, ha=side, va="center", color=_DIM)


def section(array: NDArray[Any], plane: Plane, cut: tuple[int, int, int]) -> NDArray[Any]:
    """The cut through an array (X, Y, Z) as rows and columns of the picture."""
    part: NDArray[Any] = np.take(array, cut[plane.across], axis=plane.across)
    return part.T if plane.rows > plane.columns else part


def fill(labels: NDArray[np.uint8], colours: Colours = TUMOUR_COLOURS) -> NDArray[np.uint8]:
    """RGBA of a slice of labels: translucent colour, nothing on background."""
    out = np.zeros((*labels.shape, 4), np.uint8)
    for label, colour in colours.items():
        out[labels == label] = (*colour, round(255 * _FILL))
    return out


def outline(
    axes: Axes,
    labels: NDArray[np.uint8],
    across: float,
    down: float,
    colours: Colours = TUMOUR_COLOURS,
) -> None:
    """Lines around each label of a slice; `across` and `down` are the pixel's size in mm."""
    columns, rows = np.arange(labels.shape[1]) * across, np.arange(labels.shape[0]) * down
    if min(labels.shape) < 2:
        return  # a contour needs a square of voxels
    for label, colour in colours.items():
        mask = (labels == label).astype(np.float32)
        if 0.0 < mask.mean() < 1.0:
            line = tuple(part / 255 for part in colour)
            axes.contour(columns, rows, mask, levels=[0.5], colors=[line], linewidths=1.0)


def _plane_title(scene: _Scene, plane: Plane) -> str:
    """Name of the plane and which slice of the file it is, counted from 1."""
    native = scene.native
    axis = next(a for a, code in enumerate(native.axcodes) if code in plane.normal)
    where = scene.labels.affine @ np.array([*scene.cut, 1.0])
    index = round(float(np.linalg.solve(native.affine, where)[axis]))
    return f"{plane.name} · slice {index + 1} of {native.shape[axis]}"


def _draw_legend(figure: Figure, volumes: Mapping[str, float], model: str | None) -> None:
    """Colours, volumes of labels and regions, and how to read the picture."""
    axes = figure.add_axes((0.805, 0.0, 0.19, 1.0))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()
    found = volumes["WT"] > 0
    write_text(
        axes, 0.0, 0.93, "Volumes" if found else "No tumour found", weight="bold", fontsize=14
    )
    y = 0.86
    for label in reversed(TUMOUR_LABELS):
        name = LABEL_NAMES[label]
        axes.add_patch(Rectangle((0.0, y - 0.014), 0.085, 0.028, color=_colour(label)))
        _write_volume(axes, y, name, volumes[name], indent=0.13)
        write_text(
            axes, 0.13, y - 0.028, _wrapped(LABEL_MEANINGS[label]), fontsize=8, color=_DIM, va="top"
        )
        y -= 0.105
    y -= 0.01
    meanings = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}
    for region in REGIONS:
        _write_volume(axes, y, f"{region}  {meanings[region]}", volumes[region], indent=0.0)
        y -= 0.045
    write_text(
        axes,
        0.0,
        0.30,
        "Radiological convention:\nthe patient's right is on the\nleft of the picture.",
        va="top",
    )
    notes = ["Largest section of the tumour\nin each plane." if found else "Middle of the head."]
    notes += [f"Model: {model}"] if model else []
    notes += ["Not a medical device."]
    write_text(axes, 0.0, 0.20, "\n".join(notes), va="top", color=_DIM)


def _write_volume(axes: Axes, y: float, name: str, millilitres: float, *, indent: float) -> None:
    write_text(axes, indent, y, name, fontsize=11)
    write_text(axes, 0.98, y, f"{millilitres:.1f} mL", fontsize=11, ha="right")


def write_text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text at a place given as a fraction of the axes."""
    look: dict[str, Any] = {"color": _INK, "fontsize": 10, "va": "center", "ha": "left"} | style
    axes.text(x, y, text, transform=axes.transAxes, **look)


def _wrapped(text: str, width: int = 28) -> str:
    """Text broken at blanks into lines of at most `width` letters."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _colour(label: Label) -> tuple[float, float, float]:
    red, green, blue = LABEL_COLOURS[label]
    return red / 255, green / 255, blue / 255
