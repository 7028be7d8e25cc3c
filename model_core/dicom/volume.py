"""A series made a volume: every voxel decoded, scaled, and put where its slice lies.

Nothing is turned or interpolated: the array axes are along a row, down a column, and from slice to
slice, as `model_core.dicom.stack` orders them. World frame: RAS+ mm.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_core.dicom.limits import ARGUMENT, DEFAULT_LIMITS, DicomLimits
from model_core.dicom.pixels import decoded_frames
from model_core.dicom.series import Series
from model_core.errors import ImageError
from model_core.imaging.grid import Grid
from model_core.imaging.volume import Volume


def read_series(
    series: Series, *, argument: str = ARGUMENT, limits: DicomLimits = DEFAULT_LIMITS
) -> Volume:
    """Read the pixels of a series.

    Args:
        series: one of `list_series`, without problems.
        argument: what the caller calls this image, e.g. ``"t1ce"``; used in errors.
        limits: what is still accepted.

    Returns:
        float32 (columns, rows, slices): the stored numbers times the rescale slope of their slice
        plus its intercept (PS3.3 C.11.1), with the grid and the warnings of the series.

    Raises:
        ImageError: the series has problems, or its pixels cannot be decoded.
    """
    grid = _grid(series, argument)
    try:
        values = _values(series, grid, limits)
        return Volume(values.T, grid.affine, warnings=series.warnings)
    except ImageError as error:
        raise ImageError(
            argument, expected=error.expected, got=error.got, way_out=error.way_out
        ) from None


def _grid(series: Series, argument: str) -> Grid:
    if series.grid is not None and not series.problems:
        return series.grid
    raise ImageError(
        argument,
        expected="a series whose slices make one volume",
        got="; ".join(series.problems) or "none",
        way_out="Choose another series, or export this one again.",
    )


def _values(series: Series, grid: Grid, limits: DicomLimits) -> NDArray[np.float32]:
    """The volume as (slices, rows, columns)."""
    columns, rows, slices = grid.shape
    values = np.empty((slices, rows, columns), dtype=np.float32)
    for path, places in _places(series).items():
        for index, pixels in decoded_frames(path, places, (rows, columns), limits):
            place = places[index]
            _scale(pixels, series.frames[place].scaling or (1.0, 0.0), values[place])
            del places[index]
        if places:
            raise ImageError(
                ARGUMENT,
                expected="as many frames as the header says",
                got="fewer",
                way_out="The file was cut off: send it again.",
            )
    return values


def _places(series: Series) -> dict[Path, dict[int, int]]:
    """For each file: the number of a frame in it → the slice that it is."""
    places: dict[Path, dict[int, int]] = defaultdict(dict)
    for place, frame in enumerate(series.frames):
        places[frame.path][frame.index] = place
    return places


def _scale(
    pixels: NDArray[np.integer], scaling: tuple[float, float], out: NDArray[np.float32]
) -> None:
    slope, intercept = scaling
    with np.errstate(all="ignore"):  # overflow ends as infinity, which no Volume accepts
        np.multiply(pixels, slope, out=out, casting="unsafe")
        out += np.float32(intercept)
