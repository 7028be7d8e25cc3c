"""Whether a written label map, read back, is the one that was meant: every voxel, every place."""

from __future__ import annotations

from typing import Final

import numpy as np

from model_core.errors import InputError
from model_core.findings.flags import Flag
from model_core.imaging.grid import SAME_GRID_TOLERANCE_MM, Grid
from model_core.imaging.nifti import read_label_map
from model_core.labels import LabelArray

_WAY_OUT: Final = "Do not use it; write it again."


def check_round_trip(encoded: bytes, labels: LabelArray, grid: Grid) -> tuple[Flag, ...]:
    """Read an encoded label map back and compare it with what it was made from.

    Args:
        encoded: a ``.nii`` or ``.nii.gz`` file.
        labels: internal labels (X, Y, Z) that it should hold.
        grid: where they lie.

    Returns:
        one ``fail`` flag, or nothing when grid and labels agree.
    """
    try:
        found, volume = read_label_map(encoded, argument="label map")
    except InputError as error:
        return (_flag(f"it cannot be read: expected {error.expected}, got {error.got}"),)
    if found.shape != grid.shape:
        return (_flag("its shape is another"),)
    apart = grid.distance_mm(volume.affine)
    if not apart <= SAME_GRID_TOLERANCE_MM:  # NaN too
        return (_flag("a voxel lies elsewhere", apart, SAME_GRID_TOLERANCE_MM),)
    different = int(np.count_nonzero(found != labels))
    if different:
        return (_flag("voxels have other labels", float(different), 0.0),)
    return ()


def _flag(problem: str, value: float | None = None, limit: float | None = None) -> Flag:
    return Flag(
        code="geometry-round-trip",
        severity="fail",
        reason=f"The written label map is not the one that was found: {problem}. {_WAY_OUT}",
        value=value,
        limit=limit,
    )
