"""What was measured of a label map, as values, as JSON and as the rows of a table.

World frame: RAS+ mm. Voxel indices count the array axes of the label map as it was handed over;
boxes are half-open, [start, stop). Numbers are rounded to a millionth only on the way out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from model_core.types import Spacing

Point = tuple[float, float, float]
Voxel = tuple[int, int, int]
Cell = str | int | float | bool | None

SCHEMA: Final = "segmamba-statistics/1"
"""Changes when a field is renamed, moved or redefined; new fields do not change it."""
RANO_LEAST_MM: Final = 10.0
"""RANO 2.0 calls a lesion measurable from this on, in both diameters."""
_DECIMALS: Final = 6


@dataclass(frozen=True, kw_only=True)
class Line:
    """A straight line between two points of a lesion's surface."""

    start_mm: Point
    end_mm: Point
    length_mm: float


@dataclass(frozen=True, kw_only=True)
class AxialMeasure:
    """Two diameters at right angles on the axial slice where their product is largest.

    Attributes:
        axis: the array axis along which the slices are counted: the one nearest to the body's.
        index: the slice.
        long: the longest diameter on it.
        short: the longest perpendicular.
        product_mm2: of both lengths.
        slices: how many axial slices the lesion touches; RANO 2.0 wants two at least.
        reaches_rano: both diameters are at least `RANO_LEAST_MM`. A remark, no decision.
    """

    axis: int
    index: int
    long: Line
    short: Line
    product_mm2: float
    slices: int
    reaches_rano: bool


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a set of voxels lies.

    Attributes:
        centroid_mm: mean of its voxel centres.
        centroid_voxel: the same as a voxel index.
        box_voxel: first index and the one behind the last, along the array axes.
        box_mm: the corners of the box around all its voxels, faces included, along R, A and S.
    """

    centroid_mm: Point
    centroid_voxel: Point
    box_voxel: tuple[Voxel, Voxel]
    box_mm: tuple[Point, Point]


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One 26-connected part of a structure.

    Attributes:
        voxels: how many.
        volume_ml: of them.
        place: where they lie.
        diameter: the longest line between two points of its surface, in any direction.
        axial: its two diameters on one axial slice.
    """

    voxels: int
    volume_ml: float
    place: Place
    diameter: Line
    axial: AxialMeasure


@dataclass(frozen=True, kw_only=True)
class Structure:
    """A label (NCR, ED, ET) or a region (WT, TC; region ET is label ET).

    Attributes:
        name: of it.
        meaning: in words.
        voxels: how many, 0 if there is none.
        volume_ml: of them.
        components: 26-connected parts.
        place: of all parts together; None if there is none.
        diameter: the longest of all parts; no line joins two parts.
        axial: of the part where the product is largest.
        lesions: the largest parts, by volume.
    """

    name: str
    meaning: str
    voxels: int
    volume_ml: float
    components: int
    place: Place | None
    diameter: Line | None
    axial: AxialMeasure | None
    lesions: tuple[Lesion, ...]

    def row(self) -> dict[str, Cell]:
        """One row of a table: numbers and yes or no, None where there is nothing to measure."""
        row: dict[str, Cell] = {
            "structure": self.name,
            "volume_ml": _rounded(self.volume_ml),
            "voxels": self.voxels,
            "components": self.components,
            "largest_ml": _rounded(self.lesions[0].volume_ml) if self.lesions else None,
        }
        centre = self.place.centroid_mm if self.place else (None, None, None)
        for axis, value in zip("ras", centre, strict=True):
            row[f"centroid_{axis}_mm"] = _rounded(value)
        row["diameter_mm"] = _rounded(self.diameter.length_mm) if self.diameter else None
        axial = self.axial
        row["axial_long_mm"] = _rounded(axial.long.length_mm) if axial else None
        row["axial_short_mm"] = _rounded(axial.short.length_mm) if axial else None
        row["axial_product_mm2"] = _rounded(axial.product_mm2) if axial else None
        row["axial_slices"] = axial.slices if axial else 0
        row["reaches_rano"] = axial.reaches_rano if axial else False
        return row


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Every structure of one label map.

    Attributes:
        spacing_mm: along the array axes.
        orientation: of the array axes, e.g. ``"LPS"``.
        voxel_ml: volume of one voxel.
        structures: WT, TC, ET, NCR and ED, in this order.
    """

    spacing_mm: Spacing
    orientation: str
    voxel_ml: float
    structures: tuple[Structure, ...]

    def __getitem__(self, name: str) -> Structure:
        """The structure of that name.

        Raises:
            KeyError: there is none.
        """
        return {structure.name: structure for structure in self.structures}[name]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values; see `SCHEMA`."""
        return {
            "schema": SCHEMA,
            "frame": "RAS+ mm",
            "spacing_mm": _plain(self.spacing_mm),
            "orientation": self.orientation,
            "voxel_ml": self.voxel_ml,
            "rano_least_mm": RANO_LEAST_MM,
            "structures": {one.name: _without_name(one) for one in self.structures},
        }

    def rows(self) -> list[dict[str, Cell]]:
        """One row a structure."""
        return [structure.row() for structure in self.structures]


def to_csv(studies: Mapping[str, Statistics]) -> str:
    """Statistics of studies by name as CSV: a header, then one row per study and structure."""
    rows = [
        {"study": name, **row} for name, statistics in studies.items() for row in statistics.rows()
    ]
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _without_name(structure: Structure) -> dict[str, Any]:
    fields: dict[str, Any] = _plain(asdict(structure))
    del fields["name"]
    return fields


def _plain(value: Any) -> Any:
    """Tuples as lists and numbers rounded, all the way down."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return _rounded(value) if isinstance(value, float) else value


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DECIMALS) + 0.0  # no minus zero
