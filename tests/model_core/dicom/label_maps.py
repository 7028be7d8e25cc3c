"""What the tests of DICOM objects share: an asymmetric label map, a series below it, a reader."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from model_core.dicom.derived import Algorithm, Output
from model_core.dicom.series import list_series
from model_core.dicom.sources import Sources, sources_of
from model_core.types import Shape3
from tests.dicom_series import (
    LPS_TO_RAS,
    PLAIN,
    SeriesRecipe,
    geometry_affine,
    write_enhanced,
    write_series,
)

SHAPE: Shape3 = (7, 6, 9)
SPACING = (0.9, 1.1, 2.5)
ALGORITHM = Algorithm(
    name="segmamba-small",
    version="1.2.0",
    weights_sha256="0123456789abcdef" * 4,
    parameters={"tta": "full"},
)
OUTPUT = Output(
    created=datetime(2026, 3, 4, 5, 6, 7, 890000),  # DICOM's times are local
    series_number=9001,
    series_description="Brain tumour segmentation",
)
SR_OUTPUT = Output(
    created=OUTPUT.created, series_number=9002, series_description="Brain tumour measurements"
)


@dataclass(frozen=True, eq=False)
class Case:
    """A label map on the grid of a series.

    Attributes:
        labels: (X, Y, Z) in the order of the acquisition: along a row, down a column, slices.
        affine: its index → RAS+ mm.
        files: the series, shuffled.
        sources: the same, read.
    """

    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    files: tuple[Path, ...]
    sources: Sources

    def headers(self) -> list[Dataset]:
        return [dcmread(path) for path in self.files]


def asymmetric_labels(shape: Shape3 = SHAPE) -> NDArray[np.uint8]:
    """All three labels, with no symmetry of any kind, empty slices at both ends and within."""
    labels = np.random.default_rng(5).integers(0, 4, shape).astype(np.uint8)
    labels[:, :, [0, 4, -2, -1]] = 0
    labels[:, :, 1] = np.minimum(labels[:, :, 1], 1)
    return labels


def case_of(
    folder: Path,
    geometry: str = "axial",
    *,
    oblique: bool = False,
    recipe: SeriesRecipe = PLAIN,
    enhanced: bool = False,
) -> Case:
    affine = geometry_affine(geometry, shape=SHAPE, spacing=SPACING, oblique=oblique)
    labels = asymmetric_labels()
    if enhanced:
        files = (write_enhanced(folder / "enhanced.dcm", labels * 100, affine, recipe),)
    else:
        files = write_series(folder / "series", labels * 100, affine, recipe)
    order = np.random.default_rng(11).permutation(len(files))
    shuffled = tuple(files[index] for index in order)
    return Case(labels, affine, shuffled, sources_in(shuffled))


def sources_in(files: Sequence[Path]) -> Sources:
    (series,) = list_series(files)
    return sources_of(series)


def dcmqi(name: str) -> str:
    """A program of dcmqi, beside this interpreter or on the path; the test skips without it."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        pytest.skip(f"needs {name} of dcmqi (pip install dcmqi)")
    return found


def read(data: bytes) -> Dataset:
    return dcmread(BytesIO(data))


def on_grid(
    points_ras: NDArray[np.float64],
    values: NDArray[np.uint8],
    affine: NDArray[np.float64],
    shape: Shape3,
) -> NDArray[np.uint8]:
    """Drop voxels at their places into an empty map, refusing any that misses a voxel centre."""
    homogeneous = np.column_stack([points_ras, np.ones(len(points_ras))])
    index = (homogeneous @ np.linalg.inv(affine).T)[:, :3]
    nearest = np.rint(index).astype(int)
    assert np.abs(index - nearest).max() < 1e-3, "a voxel lies between the voxels of the grid"
    assert (nearest >= 0).all()
    assert (nearest < shape).all()
    labels = np.zeros(shape, dtype=np.uint8)
    assert not labels[tuple(nearest.T)].any()
    labels[tuple(nearest.T)] = values
    return labels


def decoded_by_hand(seg: Dataset) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Places (RAS+ mm) and labels of all voxels, out of pixel bytes and functional groups alone."""
    places, values = [], []
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, stored_frames(seg), strict=True):
        label = (
            int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            if seg.SegmentationType == "BINARY"
            else 1
        )
        rows, columns = np.nonzero(pixels)
        places.append(_places(seg, frame, rows, columns))
        values.append((pixels[rows, columns] * label).astype(np.uint8))
    return np.concatenate(places), np.concatenate(values)


def stored_frames(seg: Dataset) -> NDArray[np.uint8]:
    """The frames as stored: bits, the first one lowest (PS3.5, 8.1.1), or bytes."""
    shape = (int(seg.NumberOfFrames), int(seg.Rows), int(seg.Columns))
    data = np.frombuffer(seg.PixelData, dtype=np.uint8)
    if seg.BitsAllocated == 1:
        data = np.unpackbits(data, bitorder="little")
    return data[: int(np.prod(shape))].reshape(shape)


def _places(
    seg: Dataset, frame: Dataset, rows: NDArray[Any], columns: NDArray[Any]
) -> NDArray[np.float64]:
    """RAS+ mm of pixels of one frame (PS3.3, equation C.7.6.2.1-1)."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    cosines = np.array(
        [float(c) for c in shared.PlaneOrientationSequence[0].ImageOrientationPatient]
    )
    spacing = [float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing]
    position = [float(mm) for mm in frame.PlanePositionSequence[0].ImagePositionPatient]
    lps = (
        np.array(position)
        + columns[:, None] * spacing[1] * cosines[:3]
        + rows[:, None] * spacing[0] * cosines[3:]
    )
    return lps @ LPS_TO_RAS


def voxels_of(
    array: NDArray[np.uint8], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Places and values of all voxels that are not 0, under an affine."""
    index = np.argwhere(array)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    return points, array[tuple(index.T)]
