"""Cuts through a head: three planes through a point, and what part of each is shown.

Arrays are turned to LPI (axes to the patient's left, posterior, inferior): shown unturned, that is
radiological convention, the patient's right on the left. The cuts follow the axes of the label
map's grid, so those of an oblique scan are as oblique as the scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_core.imaging.volume import Volume
from model_core.labels import LabelArray
from model_core.report.paint import Box, Mark, Pixels, bar, enlarged, greys, write
from model_core.types import Contrast, Shape3

VIEW: Final = "LPI"
SIDE: Final = 256
"""Pixels of a square panel."""
CONTRAST_TITLES: Final[Mapping[Contrast, str]] = {
    "t1": "T1",
    "t1ce": "T1ce",
    "t2": "T2",
    "flair": "FLAIR",
}
_GAP: Final = 2
_INSET: Final = 11
_MARGIN_MM: Final = 10.0
_BARS_MM: Final = (50, 20, 10, 5)
_LARGEST_BAR: Final = 0.35
"""Of a panel's width."""
_PERCENTILE: Final = 99.7
"""Nearly the highest value of the head, so that one voxel cannot rule."""


@dataclass(frozen=True)
class Plane:
    """One way to cut: array axes in `VIEW`, and the letters left, right, above and below."""

    name: str
    across: int
    rows: int
    columns: int
    edges: str


PLANES: Final = (
    Plane("axial", 2, 1, 0, "RLAP"),
    Plane("coronal", 1, 2, 0, "RLSI"),
    Plane("sagittal", 0, 2, 1, "APSI"),
)


@dataclass(frozen=True, eq=False)
class Head:
    """Contrasts and labels on one grid, turned to `VIEW`.

    Attributes:
        images: values by contrast, in the order in which they are shown.
        labels: (X, Y, Z).
        spacing_mm: along the axes.
        ceilings: the brightest shown value of each contrast.
        width_mm: the longest side of the head's box, with a margin.
    """

    images: Mapping[Contrast, NDArray[Any]]
    labels: LabelArray
    spacing_mm: tuple[float, float, float]
    ceilings: Mapping[Contrast, float]
    width_mm: float


def head_of(images: Mapping[Contrast, Volume], labels: Volume) -> Head:
    """Turn the images and the labels of one grid."""
    turned = {contrast: volume.reoriented(VIEW).array for contrast, volume in images.items()}
    seen = labels.reoriented(VIEW)
    return Head(
        images=turned,
        labels=seen.array,
        spacing_mm=seen.spacing_mm,
        ceilings={contrast: _brightest(array) for contrast, array in turned.items()},
        width_mm=_width(next(iter(turned.values())), seen.spacing_mm),
    )


@dataclass(frozen=True)
class View:
    """What part of a head is looked at.

    Attributes:
        centre: the voxel that the three planes meet in.
        width_mm: of every panel.
    """

    centre: Shape3
    width_mm: float

    def box(self, plane: Plane, spacing_mm: Sequence[float]) -> Box:
        """The panel's edges on a slice, in pixels of the slice."""
        half = self.width_mm / 2
        x, y = (self.centre[axis] + 0.5 for axis in (plane.columns, plane.rows))
        across, down = half / spacing_mm[plane.columns], half / spacing_mm[plane.rows]
        return x - across, y - down, x + across, y + down


def slice_of(array: NDArray[Any], plane: Plane, centre: Shape3) -> NDArray[Any]:
    """The cut through an array (X, Y, Z) as rows and columns of a picture."""
    # np.take would first copy the whole array, which a turned one makes slow
    part: NDArray[Any] = np.moveaxis(array, plane.across, 0)[centre[plane.across]]
    return part.T


def grey_panel(head: Head, contrast: Contrast, plane: Plane, view: View) -> Pixels:
    """One contrast on one plane."""
    part = slice_of(head.images[contrast], plane, view.centre)
    return greys(enlarged(part, view.box(plane, head.spacing_mm), SIDE), head.ceilings[contrast])


def mask_panel(part: NDArray[np.bool_], box: Box) -> NDArray[np.bool_]:
    """A slice of a mask as a panel, its rim smoothed between voxels."""
    smooth: NDArray[np.bool_] = enlarged(part, box, SIDE) > 0.5
    return smooth


def letter(pixels: Pixels, plane: Plane, title: str, view: View) -> None:
    """Write a panel's title, the letters of its sides and its scale bar, in place."""
    middle, far = SIDE / 2, SIDE - _INSET
    places = ((_INSET, middle), (far, middle), (middle, _INSET), (middle, far))
    marks = [Mark(x, y, text) for (x, y), text in zip(places, plane.edges, strict=True)]
    length_mm = next((mm for mm in _BARS_MM if mm <= _LARGEST_BAR * view.width_mm), _BARS_MM[-1])
    length = round(length_mm / view.width_mm * SIDE)
    right, bottom = SIDE - 8, SIDE - 22
    marks += [
        Mark(6, 5, title, "la"),
        Mark(right - length / 2, bottom - 6, f"{length_mm} mm", "md", 12),
    ]
    write(pixels, marks)
    bar(pixels, right, bottom, length)


def sheet(panels: Sequence[Sequence[Pixels]]) -> Pixels:
    """Rows of panels as one picture, with black lines between them."""
    rows, columns = len(panels), len(panels[0])
    step = SIDE + _GAP
    whole = np.zeros((rows * step - _GAP, columns * step - _GAP), np.uint8)
    for row, line in enumerate(panels):
        for column, panel in enumerate(line):
            top, left = row * step, column * step
            whole[top : top + SIDE, left : left + SIDE] = panel
    return whole


def middle_of(array: NDArray[Any]) -> Shape3:
    """The middle voxel of the box around what is not 0."""
    low, high = _box(array != 0)
    x, y, z = ((first + last) // 2 for first, last in zip(low, high, strict=True))
    return x, y, z


def _width(image: NDArray[Any], spacing_mm: Sequence[float]) -> float:
    low, high = _box(image != 0)
    sides = ((b - a + 1) * mm for a, b, mm in zip(low, high, spacing_mm, strict=True))
    return float(max(sides)) + _MARGIN_MM


def _box(mask: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    low, high = [], []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        low.append(int(used[0]) if used.size else 0)
        high.append(int(used[-1]) if used.size else mask.shape[axis] - 1)
    return low, high


def _brightest(image: NDArray[Any]) -> float:
    values = image[::2, ::2, ::2]  # an eighth of the voxels tells it as well
    values = values[values != 0]
    return max(float(np.percentile(values, _PERCENTILE)), 1e-6) if values.size else 1.0
