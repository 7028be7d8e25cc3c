"""A volume: an array and its place in the world, valid from the moment it exists.

World frame: RAS+ millimetres; see `model_core.imaging.grid`. The array keeps the axis order of the
file it came from; nothing is turned or resampled on reading.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.errors import ImageError
from model_core.imaging.grid import Grid
from model_core.imaging.orientation import turn
from model_core.types import Shape3, Spacing


@dataclass(frozen=True)
class NiftiFrame:
    """What a NIfTI header says about place and kind, and nothing about the patient.

    The raw numbers are kept so that a result can be written with the very same geometry. They are
    None once the volume was turned; the codes and units stay.

    Args:
        version: NIfTI version of the source, 1 or 2.
        sform_code: 0 if the source's sform is not to be used.
        qform_code: likewise for the qform.
        xyzt_units: the units byte (mm and, often, seconds).
        srow: the 12 raw sform numbers, row by row.
        quaternion: raw (b, c, d) of the qform.
        qoffset: raw translation of the qform in mm.
        pixdim: the first four raw values: qfac and the spacing in mm.
    """

    version: int = 1
    sform_code: int = 1
    qform_code: int = 1
    xyzt_units: int = 2
    srow: tuple[float, ...] | None = None
    quaternion: tuple[float, ...] | None = None
    qoffset: tuple[float, ...] | None = None
    pixdim: tuple[float, ...] | None = None

    def without_numbers(self) -> NiftiFrame:
        """Keep version, codes and units; drop the numbers that a turned grid makes untrue."""
        return replace(self, srow=None, quaternion=None, qoffset=None, pixdim=None)


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image or label map that is valid once it exists.

    Args:
        array: (X, Y, Z), real numbers, all finite.
        affine: 4 × 4, voxel index → RAS+ mm.
        header: how a NIfTI source said so; None for a volume made in code.
        warnings: what was odd about the source and tolerated, for people.

    Raises:
        ImageError: wrong rank, not real or not finite, or an affine that `Grid` refuses.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    header: NiftiFrame | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_array(self.array)
        object.__setattr__(self, "affine", self.grid.affine)

    @cached_property
    def grid(self) -> Grid:
        """The lattice of this volume."""
        return Grid(self.shape, self.affine)

    @property
    def shape(self) -> Shape3:
        """Voxels along the three array axes."""
        x, y, z = self.array.shape
        return x, y, z

    @property
    def spacing_mm(self) -> Spacing:
        """Distance between neighbouring voxel centres along each array axis, in mm."""
        return self.grid.spacing_mm

    @property
    def axcodes(self) -> str:
        """The closest orientation, e.g. ``"LPS"``."""
        return self.grid.axcodes

    def reoriented(self, axcodes: str) -> Volume:
        """Turn the array to another orientation; every voxel keeps its value and its place.

        Raises:
            OptionError: ``axcodes`` is not an orientation.
        """
        if axcodes == self.axcodes:
            return self
        grid = self.grid.reoriented(axcodes)
        return Volume(
            turn(self.array, self.axcodes, axcodes),
            grid.affine,
            header=self.header.without_numbers() if self.header else None,
            warnings=self.warnings,
        )


def _check_array(array: NDArray[Any]) -> None:
    if array.ndim != 3 or min(array.shape) < 1:
        problem = f"shape {array.shape}"
    elif array.dtype.kind not in "biuf":
        problem = f"numbers of type {array.dtype}"
    elif not _all_finite(array):
        problem = "NaN or infinite voxels"
    else:
        return
    raise ImageError(
        "array",
        expected="one 3-D volume of finite real numbers",
        got=problem,
        way_out="Export a single scalar volume, with undefined voxels set to 0.",
    )


def _all_finite(array: NDArray[Any]) -> bool:
    # A NaN survives min and max, and an infinity is one of them: no mask of the whole volume.
    return array.dtype.kind != "f" or bool(np.isfinite(array.min()) and np.isfinite(array.max()))
