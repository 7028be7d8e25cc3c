"""Measuring a label map: volumes, parts, places and diameters of every label and region.

All work is done on the box around the labels, turned to RAS, so the numbers do not depend on the
order in which a file stores its voxels. Distances go through the affine: oblique and anisotropic
grids need nothing special. The longest diameters are exact; parts that cannot hold the longest are
passed over by the size of their box.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_core.components import connected_components
from model_core.errors import InputError
from model_core.findings.axial import largest_section
from model_core.findings.extent import longest_diameter, surface_points
from model_core.findings.structures import (
    RANO_LEAST_MM,
    AxialMeasure,
    Lesion,
    Line,
    Place,
    Point,
    Statistics,
    Structure,
    Voxel,
)
from model_core.imaging.grid import Grid
from model_core.imaging.orientation import axis_moves, turn
from model_core.labels import LABEL_MEANINGS, LabelArray, Mask, labelled_box, region_mask
from model_core.types import Label

LISTED: Final = 10
"""Parts of a structure that are described one by one, the largest first."""
STRUCTURES: Final = ("WT", "TC", "ET", "NCR", "ED")
_MEANINGS: Final = {
    "WT": "whole tumour (NCR + ED + ET)",
    "TC": "tumour core (NCR + ET)",
    "ET": LABEL_MEANINGS[Label.ET],
    "NCR": LABEL_MEANINGS[Label.NCR],
    "ED": LABEL_MEANINGS[Label.ED],
}
_FRAME: Final = "RAS"
_SIGNS: Final = np.array([[1.0, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1]])
"""Of a box's three sides, for each of its four diagonals."""
_Result = TypeVar("_Result")
_Indices = NDArray[np.float64]


def measure(labels: LabelArray, grid: Grid) -> Statistics:
    """Measure every structure of a label map.

    Args:
        labels: internal labels (X, Y, Z).
        grid: their lattice.

    Raises:
        InputError: the labels are not on the grid.
    """
    if labels.shape != grid.shape:
        raise InputError(
            "labels",
            expected=f"the shape of their grid, {grid.shape}",
            got=f"{labels.shape}",
            way_out="Hand over the label map with its own grid.",
        )
    scene = _Scene(labels, grid)
    return Statistics(
        spacing_mm=grid.spacing_mm,
        orientation=grid.axcodes,
        voxel_ml=grid.voxel_ml,
        structures=tuple(_structure(name, scene) for name in STRUCTURES),
    )


class _Scene:
    """The box around all labels in RAS, and the way from there to mm and to the caller's array."""

    def __init__(self, labels: LabelArray, grid: Grid) -> None:
        turned = turn(labels, grid.axcodes, _FRAME)
        box = labelled_box(turned)
        self._labels = np.ascontiguousarray(turned[box])
        self._corner = np.array([cut.start for cut in box], dtype=np.float64)
        self._shape = turned.shape
        self._moves = axis_moves(grid.axcodes, _FRAME)
        self.affine = grid.reoriented(_FRAME).affine
        self.columns = self.affine[:3, :3]
        self.cell_mm2 = float(np.linalg.norm(np.cross(self.columns[:, 0], self.columns[:, 1])))
        self.voxel_ml = grid.voxel_ml
        self.slice_axis = self._moves[2][0]

    def mask(self, name: str) -> Mask:
        """Where a structure is, (X, Y, Z) in RAS."""
        if name in ("WT", "TC", "ET"):
            return region_mask(self._labels, name)  # type: ignore[arg-type]  # just checked
        return np.asarray(self._labels == Label[name])

    def mm(self, indices: _Indices) -> _Indices:
        """Places (..., 3) in the world of indices in the box."""
        placed: _Indices = (indices + self._corner) @ self.columns.T + self.affine[:3, 3]
        return placed

    def native(self, indices: _Indices) -> _Indices:
        """The caller's voxel indices (..., 3) of indices in the box."""
        found = np.empty_like(indices)
        for axis, (source, flipped) in enumerate(self._moves):
            along = indices[..., axis] + self._corner[axis]
            found[..., source] = self._shape[axis] - 1 - along if flipped else along
        return found


@dataclass(frozen=True, eq=False)
class _Part:
    """One connected part: its mask in its own box, and where the box begins in the scene."""

    scene: _Scene
    mask: Mask
    start: _Indices

    @cached_property
    def voxels(self) -> int:
        return int(np.count_nonzero(self.mask))

    @cached_property
    def box_diagonal_mm(self) -> float:
        """No two points of the part are farther apart."""
        diagonals = (self.scene.columns * self.mask.shape) @ _SIGNS
        return float(np.sqrt(np.square(diagonals).sum(axis=0).max()))

    @cached_property
    def box_bound_mm2(self) -> float:
        """No product of two diameters is larger: it is at most twice the area of their hull."""
        width, height = self.mask.shape[:2]
        return float(2 * width * height * self.scene.cell_mm2)

    @cached_property
    def diameter(self) -> Line:
        extent = longest_diameter(surface_points(self.mask), self.scene.columns)
        return self._line(min(extent.pairs.tolist()), extent.length_mm)

    @cached_property
    def axial(self) -> AxialMeasure:
        section = largest_section(self.mask, self.scene.columns[:, :2])
        level = np.full((2, 1), float(section.index))
        native = self.scene.native(self.start + np.array([0.0, 0.0, section.index]))
        return AxialMeasure(
            axis=self.scene.slice_axis,
            index=int(native[self.scene.slice_axis]),
            long=self._line(np.hstack([section.long, level]).tolist(), section.long_mm),
            short=self._line(np.hstack([section.short, level]).tolist(), section.short_mm),
            product_mm2=section.product_mm2,
            slices=int(self.mask.any(axis=(0, 1)).sum()),
            reaches_rano=min(section.long_mm, section.short_mm) >= RANO_LEAST_MM,
        )

    def lesion(self) -> Lesion:
        """All of it as values."""
        return Lesion(
            voxels=self.voxels,
            volume_ml=self.voxels * self.scene.voxel_ml,
            place=_place(self.scene, self.mask, self.start),
            diameter=self.diameter,
            axial=self.axial,
        )

    def _line(self, ends: Any, length_mm: float) -> Line:
        one, other = (self.scene.mm(np.asarray(end) + self.start) for end in ends)
        return Line(start_mm=_point(one), end_mm=_point(other), length_mm=length_mm)


def _structure(name: str, scene: _Scene) -> Structure:
    mask = scene.mask(name)
    parts = _parts(mask, scene)
    voxels = sum(part.voxels for part in parts)
    diameter = _largest(
        parts, lambda one: one.box_diagonal_mm, lambda one: one.diameter, lambda d: d.length_mm
    )
    axial = _largest(
        parts, lambda one: one.box_bound_mm2, lambda one: one.axial, lambda a: a.product_mm2
    )
    return Structure(
        name=name,
        meaning=_MEANINGS[name],
        voxels=voxels,
        volume_ml=voxels * scene.voxel_ml,
        components=len(parts),
        place=_place(scene, mask, np.zeros(3)) if parts else None,
        diameter=diameter,
        axial=axial,
        lesions=tuple(part.lesion() for part in parts[:LISTED]),
    )


def _parts(mask: Mask, scene: _Scene) -> list[_Part]:
    """The connected parts, the largest first; equal ones in array order."""
    ids, _ = connected_components(mask, 26)
    parts = []
    for number, box in enumerate(ndimage.find_objects(ids), start=1):
        start = np.array([cut.start for cut in box], dtype=np.float64)
        parts.append(_Part(scene, np.ascontiguousarray(ids[box] == number), start))
    return sorted(parts, key=lambda part: -part.voxels)


def _largest(
    parts: Iterable[_Part],
    bound: Callable[[_Part], float],
    measured: Callable[[_Part], _Result],
    size: Callable[[_Result], float],
) -> _Result | None:
    """The largest measure of all parts; a part whose bound is below the best is not measured."""
    best: _Result | None = None
    for part in sorted(parts, key=bound, reverse=True):
        if best is not None and bound(part) <= size(best):
            break
        found = measured(part)
        if best is None or size(found) > size(best):
            best = found
    return best


def _place(scene: _Scene, mask: Mask, start: _Indices) -> Place:
    used = [np.flatnonzero(mask.any(axis=_others(axis))) for axis in range(3)]
    centre = np.array([_mean_index(mask, axis) for axis in range(3)]) + start
    low = np.array([indices[0] for indices in used]) + start
    high = np.array([indices[-1] for indices in used]) + start
    ends = np.stack([scene.native(low), scene.native(high)])
    return Place(
        centroid_mm=_point(scene.mm(centre)),
        centroid_voxel=_point(scene.native(centre)),
        box_voxel=(_voxel(ends.min(axis=0)), _voxel(ends.max(axis=0) + 1)),
        box_mm=_box_mm(scene, low - 0.5, high + 0.5),
    )


def _box_mm(scene: _Scene, low: _Indices, high: _Indices) -> tuple[Point, Point]:
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, 8)
    places = scene.mm(corners.T)
    return _point(places.min(axis=0)), _point(places.max(axis=0))


def _mean_index(mask: Mask, axis: int) -> float:
    counts = np.count_nonzero(mask, axis=_others(axis))
    return float(np.arange(len(counts)) @ counts / counts.sum())


def _others(axis: int) -> tuple[int, int]:
    first, second = (other for other in range(3) if other != axis)
    return first, second


def _point(values: _Indices) -> Point:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _voxel(values: _Indices) -> Voxel:
    x, y, z = (int(value) for value in values)
    return x, y, z
