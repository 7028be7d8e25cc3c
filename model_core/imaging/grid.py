"""The lattice on which an image lives: a shape, and where each voxel centre lies in the world.

World frame: RAS+ millimetres. `affine` maps a voxel index (i, j, k, 1) to (x, y, z, 1); integer
indices are voxel *centres*, so the imaged box reaches half a voxel beyond the first and the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_core.errors import ImageError
from model_core.imaging.orientation import (
    axis_moves,
    check_orientation,
    closest_orientation,
    turn_affine,
)
from model_core.types import Shape3, Spacing

SAME_GRID_TOLERANCE_MM: Final = 1e-2
"""Two grids are one if no voxel centre differs by more: far below any voxel, far above rounding."""
SMALLEST_SINE: Final = 1e-3
"""Below this volume of the unit parallelepiped, three axes count as lying in one plane."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel lattice that is valid once it exists.

    Args:
        shape: voxels along the three array axes, each at least 1.
        affine: 4 × 4, voxel index → RAS+ mm; finite, last row (0, 0, 0, 1), three axes in space.

    Raises:
        ImageError: the shape or the affine is not usable.
    """

    shape: Shape3
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ImageError(
                "shape",
                expected="three axes of at least one voxel",
                got=f"{tuple(self.shape)}",
                way_out="Hand over one 3-D volume.",
            )
        affine = np.array(self.affine, dtype=np.float64)
        _check_affine(affine)
        affine.flags.writeable = False
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> Spacing:
        """Distance between neighbouring voxel centres along each array axis, in mm."""
        x, y, z = (float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    @property
    def axcodes(self) -> str:
        """The closest orientation, e.g. ``"LPS"`` (see `model_core.imaging.orientation`)."""
        return closest_orientation(self.affine)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres (1 mL = 1000 mm³)."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def matches(self, other: Grid, tolerance_mm: float = SAME_GRID_TOLERANCE_MM) -> bool:
        """Tell whether both grids have the same shape and put every voxel at the same place."""
        return self.shape == other.shape and self.distance_mm(other.affine) <= tolerance_mm

    def distance_mm(self, affine: NDArray[np.float64]) -> float:
        """Largest distance, over all voxels, between their places under this and another affine."""
        corners = np.array([(*c, 1.0) for c in product(*((0, size - 1) for size in self.shape))])
        with np.errstate(all="ignore"):  # absurd numbers give infinity or NaN, never a warning
            moved = corners @ (self.affine - affine)[:3].T
            return float(np.linalg.norm(moved, axis=1).max())

    def reoriented(self, axcodes: str) -> Grid:
        """Give the same lattice with its array axes in another orientation.

        Raises:
            OptionError: ``axcodes`` is not an orientation.
        """
        check_orientation(axcodes)
        moves = axis_moves(self.axcodes, axcodes)
        x, y, z = (self.shape[source] for source, _ in moves)
        return Grid((x, y, z), turn_affine(self.affine, self.shape, moves))

    def cropped(self, start: Shape3, shape: Shape3) -> Grid:
        """Give the part that begins at voxel ``start``; every voxel keeps its place."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.asarray(start, dtype=np.float64)
        return Grid(shape, affine)

    def describe(self) -> str:
        """Say the grid in one line for people: shape, spacing, orientation."""
        shape = "×".join(str(size) for size in self.shape)
        spacing = "×".join(f"{mm:.3g}" for mm in self.spacing_mm)
        return f"{shape} voxels of {spacing} mm, {self.axcodes}"


def _check_affine(affine: NDArray[np.float64]) -> None:
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        problem = "a matrix of another shape, or numbers that are not finite"
    elif not np.array_equal(affine[3], (0.0, 0.0, 0.0, 1.0)):
        problem = "another last row"
    elif not _spans_space(affine[:3, :3]):
        problem = "axes of no length or in one plane (a singular matrix)"
    else:
        return
    raise ImageError(
        "affine",
        expected="a finite, invertible 4×4 matrix with last row 0 0 0 1",
        got=problem,
        way_out="Export the image again with its orientation (sform or qform).",
    )


def _spans_space(columns: NDArray[np.float64]) -> bool:
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(columns, axis=0)
        if not (np.isfinite(lengths).all() and lengths.min() > 0):
            return False
        return bool(abs(np.linalg.det(columns / lengths)) >= SMALLEST_SINE)
