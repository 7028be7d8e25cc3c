"""Faces taken out of the pixels of DICOM images: which slice lies where, and what it loses.

The headers of a series say where each of its slices lies (`model_core.dicom.series`); whoever knows
where the face is says which points belong to it. Geometry, scaling and bit depth stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from model_core.dicom.series import Series
from model_core.errors import ImageError
from model_core.imaging.grid import Grid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Face = Callable[[NDArray[np.float64]], NDArray[np.bool_]]
"""Tells of points (…, 3), RAS+ mm, which belong to a face."""
_EXTREMES: Final = ("SmallestImagePixelValue", "LargestImagePixelValue")
"""(0028,0106), (0028,0107): optional, and no longer true."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """One slice on the grid of its series.

    Attributes:
        grid: of the series.
        number: of the slice along the grid's third axis.
        scaling: rescale slope and intercept of its pixels.
        face: which points are taken out.
    """

    grid: Grid
    number: int
    scaling: tuple[float, float]
    face: Face

    def hidden(self) -> NDArray[np.bool_]:
        """Which pixels (rows, columns) are taken out: those whose centre lies in the face."""
        columns, rows, _ = self.grid.shape
        index = np.empty((rows, columns, 3))
        index[..., 0] = np.arange(columns)
        index[..., 1] = np.arange(rows)[:, None]
        index[..., 2] = self.number
        affine = self.grid.affine
        return self.face(index @ affine[:3, :3].T + affine[:3, 3])


Places = Mapping[int, Place]
"""For the number of each frame of one file, from 0: where it lies."""


def places_of(series: Iterable[tuple[Series, Face]]) -> dict[Path, Places]:
    """Say for every file of some series where its frames lie.

    Args:
        series: each with a grid, and the face that it shows.
    """
    places: dict[Path, dict[int, Place]] = defaultdict(dict)
    for one, face in series:
        assert one.grid is not None
        for number, frame in enumerate(one.frames):
            scaling = frame.scaling or (1.0, 0.0)
            places[frame.path][frame.index] = Place(
                grid=one.grid, number=number, scaling=scaling, face=face
            )
    return dict(places)


def take_face_out(dataset: Dataset, places: Places) -> None:
    """Set the pixels of the face to the number that stands for 0, or the one nearest to it.

    Args:
        dataset: an image with unpacked pixels; only these are changed, and the optional extremes
            of their values taken away.
        places: of its frames.

    Raises:
        ImageError: a frame has no place, so its face would stay.
    """
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    if set(places) != set(range(count)):
        raise _unplaced()
    shape = (count, int(dataset.Rows), int(dataset.Columns))
    data = dataset["PixelData"].value
    kind = np.dtype(f"<{'i' if dataset.PixelRepresentation else 'u'}{dataset.BitsAllocated // 8}")
    values = np.frombuffer(data, kind, int(np.prod(shape))).reshape(shape).copy()
    for number, place in places.items():
        values[number][place.hidden()] = _stored_zero(dataset, place.scaling)
    dataset["PixelData"].value = values.tobytes() + bytes(len(data) - values.nbytes)
    for keyword in _EXTREMES:
        if keyword in dataset:
            delattr(dataset, keyword)


def _stored_zero(dataset: Dataset, scaling: tuple[float, float]) -> int:
    """The stored number that is 0 once it is scaled; the nearest there is."""
    bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    least = -(1 << bits - 1) if signed else 0
    slope, intercept = scaling
    zero = -intercept / slope if slope else 0.0
    return int(np.rint(np.clip(zero, least, least + (1 << bits) - 1)))


def _unplaced() -> ImageError:
    return ImageError(
        "dicom",
        expected="an image of a series that makes one volume",
        got="one that does not, so that its face would stay",
        way_out="Leave the series out, or export it again.",
    )
