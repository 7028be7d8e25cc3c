"""The property that every reader of strangers' bytes must have, for any fuzzer to try."""

from __future__ import annotations

import numpy as np

from model_core.errors import ImageError
from model_core.imaging.nifti import ReadLimits, read_nifti
from model_core.imaging.volume import Volume

LIMITS = ReadLimits(file_bytes=2**20, voxels=200_000)


def read_one(data: bytes) -> bool:
    """Read bytes in this process; whether they are an image. Any other outcome is a bug."""
    outcome = _outcome(data)
    if isinstance(outcome, ImageError):
        assert outcome.argument == "t1ce"
        assert all((outcome.expected, outcome.got, outcome.way_out))
        return False
    _check_volume(outcome)
    return True


def _outcome(data: bytes) -> Volume | ImageError:
    try:
        return read_nifti(data, argument="t1ce", limits=LIMITS)
    except ImageError as error:
        return error


def _check_volume(volume: Volume) -> None:
    assert volume.array.dtype == np.float32
    assert np.isfinite(volume.array).all()
    assert volume.array.size <= LIMITS.voxels
    assert min(volume.shape) >= LIMITS.shortest_axis
    assert max(volume.shape) <= LIMITS.longest_axis
    assert np.isfinite(volume.affine).all()
    assert min(volume.spacing_mm) > 0
    assert len(volume.axcodes) == 3
