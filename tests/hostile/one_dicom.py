"""The property that the reader of strangers' DICOM files must have, for any fuzzer to try."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model_core.dicom.limits import DicomLimits
from model_core.dicom.series import Series, list_series
from model_core.dicom.volume import read_series
from model_core.errors import ImageError

LIMITS = DicomLimits(files=50, file_bytes=2**22, voxels=200_000, header_bytes=2**20)


def read_files(contents: Sequence[bytes], folder: Path) -> bool:
    """Read files as one study; whether they are volumes, every one. Other outcomes are bugs."""
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"{number:03d}")
        paths[-1].write_bytes(content)
    try:
        found = list_series(paths, limits=LIMITS)
    except ImageError as error:
        return _refusal(error)
    volumes = [_is_volume(series) for series in found]  # each of them, after a bad one too
    return bool(volumes) and all(volumes)


def _refusal(error: ImageError) -> bool:
    assert error.argument == "dicom"
    assert all((error.expected, error.got, error.way_out))
    return False


def _is_volume(series: Series) -> bool:
    assert bool(series.problems) == (series.grid is None)
    assert all(series.problems)
    assert series.facts.images == len(series.frames) > 0
    try:
        volume = read_series(series, limits=LIMITS)
    except ImageError as error:
        return _refusal(error)
    assert not series.problems
    assert volume.array.dtype == np.float32
    assert np.isfinite(volume.array).all()
    assert volume.shape == series.shape
    assert volume.array.size <= LIMITS.voxels
    assert np.isfinite(volume.affine).all()
    assert min(volume.spacing_mm) > 0
    return True
