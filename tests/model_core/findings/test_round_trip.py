"""A written label map is read back: what was meant passes, anything else fails."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from model_core.findings.round_trip import check_round_trip
from model_core.imaging.grid import Grid
from model_core.imaging.nifti import encode_label_map
from model_core.imaging.volume import Volume
from model_core.types import LABEL_SCHEMES, LabelScheme
from tests.model_core.imaging.builders import ORIENTATIONS, oblique_affine

SHAPE = (9, 10, 11)
GRID = Grid(SHAPE, oblique_affine())
LABELS = np.random.default_rng(0).integers(0, 4, SHAPE, dtype=np.uint8)


def encoded(labels: np.ndarray, grid: Grid = GRID, scheme: LabelScheme = "brats2021") -> bytes:
    like = Volume(np.zeros(grid.shape, np.float32), grid.affine)
    return encode_label_map(labels, like=like, scheme=scheme)


@pytest.mark.parametrize("scheme", LABEL_SCHEMES)
@pytest.mark.parametrize("axcodes", ORIENTATIONS[::7])
def test_what_was_meant_passes_in_any_orientation_and_numbering(
    axcodes: str, scheme: LabelScheme
) -> None:
    grid = GRID.reoriented(axcodes)
    labels = np.random.default_rng(1).integers(0, 4, grid.shape, dtype=np.uint8)
    data = encoded(labels, grid, scheme)
    assert check_round_trip(data, labels, grid) == ()
    assert check_round_trip(gzip.decompress(data), labels, grid) == ()


def test_one_voxel_is_enough_to_fail() -> None:
    other = LABELS.copy()
    other[3, 4, 5] = (other[3, 4, 5] + 1) % 4
    (flag,) = check_round_trip(encoded(other), LABELS, GRID)
    assert (flag.severity, flag.value) == ("fail", 1.0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_map_fails_whether_the_voxels_or_the_place_are_mirrored(axis: int) -> None:
    (flag,) = check_round_trip(encoded(np.flip(LABELS, axis)), LABELS, GRID)
    assert "labels" in flag.reason
    affine = GRID.affine.copy()
    affine[:3, axis] *= -1
    (flag,) = check_round_trip(encoded(LABELS, Grid(SHAPE, affine)), LABELS, GRID)
    assert "elsewhere" in flag.reason
    assert flag.value is not None
    assert flag.value > 1


@pytest.mark.parametrize(("shift_mm", "passes"), [(0.005, True), (0.05, False)])
def test_a_shift_counts_from_the_tolerance_of_equal_grids_on(shift_mm: float, passes: bool) -> None:
    affine = GRID.affine.copy()
    affine[1, 3] += shift_mm
    assert (check_round_trip(encoded(LABELS, Grid(SHAPE, affine)), LABELS, GRID) == ()) is passes


def test_another_shape_and_a_broken_file_fail_with_a_reason() -> None:
    smaller = Grid((9, 10, 10), GRID.affine)
    (flag,) = check_round_trip(encoded(LABELS[..., 1:], smaller), LABELS, GRID)
    assert "shape" in flag.reason
    (flag,) = check_round_trip(encoded(LABELS)[:-40], LABELS, GRID)
    assert flag.severity == "fail"
    assert "read" in flag.reason
