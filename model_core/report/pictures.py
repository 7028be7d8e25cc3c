"""The pictures of a label map: for each of the largest lesions three planes in two contrasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from model_core.findings.structures import Lesion, Statistics
from model_core.imaging.volume import Volume
from model_core.labels import LABEL_COLOURS, Mask
from model_core.report.cuts import (
    CONTRAST_TITLES,
    PLANES,
    VIEW,
    Head,
    Plane,
    View,
    grey_panel,
    head_of,
    letter,
    mask_panel,
    middle_of,
    sheet,
    slice_of,
)
from model_core.report.paint import Colour, Pixels, data_uri, outline, png
from model_core.types import Contrast, Label, Shape3

PICTURED: Final = 6
"""Lesions that have a picture, the largest first; the others are counted."""
SHOWN: Final[tuple[Contrast, ...]] = ("t1ce", "flair")
DRAWN: Final = (Label.ED, Label.NCR, Label.ET)
"""Labels in the order in which they are drawn: the later one lies on top."""
COLOURS: Final[tuple[Colour, ...]] = tuple(LABEL_COLOURS[label] for label in DRAWN)
NARROWEST_MM: Final = 90.0
_AROUND: Final = 1.7
"""How much wider than its lesion a panel is."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with its words."""

    source: str
    """An address that holds the PNG."""
    alternative: str
    caption: str
    width: int
    height: int


def lesion_pictures(
    images: Mapping[Contrast, Volume], labels: Volume, statistics: Statistics
) -> list[Picture]:
    """A picture for each of the largest lesions of the whole tumour; of the head if there is none.

    Args:
        images: contrasts on the grid of the labels; those of `SHOWN` are used. None: no pictures.
        labels: internal labels.
        statistics: of the labels.
    """
    shown = {contrast: images[contrast] for contrast in SHOWN if contrast in images}
    if not shown:
        return []
    head = head_of(shown, labels)
    whole = statistics["WT"]
    if not whole.lesions:
        return [_of_nothing(head)]
    largest = whole.lesions[:PICTURED]
    return [
        _of_lesion(head, labels, lesion, f"Lesion {number} of {whole.components}")
        for number, lesion in enumerate(largest, start=1)
    ]


def picture_of(pixels: Pixels, colours: tuple[Colour, ...], *, told: str, caption: str) -> Picture:
    """A finished sheet with its words."""
    height, width = pixels.shape
    source = data_uri(png(pixels, colours))
    return Picture(source=source, alternative=told, caption=caption, width=width, height=height)


def view_of(head: Head, labels: Volume, lesion: Lesion) -> View:
    """The part of a head around a lesion, wide enough to see where in the head it is."""
    place = lesion.place
    sides = (high - low for low, high in zip(*place.box_mm, strict=True))
    width = min(max(NARROWEST_MM, _AROUND * max(sides)), max(NARROWEST_MM, head.width_mm))
    return View(turned_voxel(labels, place.centroid_mm), width)


def turned_voxel(labels: Volume, place_mm: tuple[float, float, float]) -> Shape3:
    """The voxel nearest to a place in RAS+ mm, in the turned array."""
    grid = labels.grid.reoriented(VIEW)
    index = np.linalg.solve(grid.affine, np.array([*place_mm, 1.0]))[:3]
    nearest = np.clip(np.rint(index), 0, np.array(grid.shape) - 1).astype(int)
    x, y, z = (int(number) for number in nearest)
    return x, y, z


def told_place(place_mm: tuple[float, float, float]) -> str:
    """A place in words: mm to right or left, front or back, up or down of the image's origin."""
    letters = (("L", "R"), ("P", "A"), ("I", "S"))
    return ", ".join(
        f"{pair[mm >= 0]} {abs(mm):.0f}" for mm, pair in zip(place_mm, letters, strict=True)
    )


def contrasts_told(head: Head) -> str:
    """The names of the rows of a sheet."""
    return " above ".join(CONTRAST_TITLES[contrast] for contrast in head.images)


def _of_lesion(head: Head, labels: Volume, lesion: Lesion, name: str) -> Picture:
    view = view_of(head, labels, lesion)
    caption = (
        f"{name}: {lesion.volume_ml:.1f} mL, longest diameter {lesion.diameter.length_mm:.0f} mm, "
        f"centre at {told_place(lesion.place.centroid_mm)} mm."
    )
    told = (
        f"{name}, {lesion.volume_ml:.1f} mL: axial, coronal and sagittal cuts through its centre "
        f"with the outlines of the labels, {contrasts_told(head)}."
    )
    return picture_of(_sheet(head, view), COLOURS, told=told, caption=caption)


def _of_nothing(head: Head) -> Picture:
    first = next(iter(head.images.values()))
    view = View(middle_of(first), head.width_mm)
    caption = "No tumour was found; the cuts go through the middle of the head."
    told = f"Axial, coronal and sagittal cuts through the middle, {contrasts_told(head)}."
    return picture_of(_sheet(head, view), COLOURS, told=told, caption=caption)


def _sheet(head: Head, view: View) -> Pixels:
    outlines = {plane.name: _outlines(head, plane, view) for plane in PLANES}
    rows = []
    for contrast in head.images:
        panels = []
        for plane in PLANES:
            pixels = grey_panel(head, contrast, plane, view)
            for number, where in enumerate(outlines[plane.name], start=1):
                outline(pixels, where, number)
            letter(pixels, plane, f"{CONTRAST_TITLES[contrast]} {plane.name}", view)
            panels.append(pixels)
        rows.append(panels)
    return sheet(rows)


def _outlines(head: Head, plane: Plane, view: View) -> list[Mask]:
    part = slice_of(head.labels, plane, view.centre)
    box = view.box(plane, head.spacing_mm)
    return [mask_panel(part == label, box) for label in DRAWN]
