"""What a label map loses on the way to its grid is told, and what it keeps is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_core.findings.flags import Flag
from model_core.findings.way_back import check_way_back
from model_core.imaging.grid import Grid
from model_core.preparation.back import carry_labels

SOURCE = Grid((60, 60, 60), np.eye(4))
WHOLE = Grid((60, 60, 11), np.diag([1, 1, 5.5, 1.0]))
SLAB = Grid((60, 60, 6), np.diag([1, 1, 5.5, 1.0]))
"""Its last slice ends at z = 30.25 mm."""
Labels = NDArray[np.uint8]


def way_back(seen: Labels, target: Grid) -> dict[tuple[str, str | None], Flag]:
    flags = check_way_back(seen, SOURCE, carry_labels(seen, SOURCE, target), target)
    return {(flag.code, flag.subject): flag for flag in flags}


def box(label: int, first: int, last: int, width: int = 20, seen: Labels | None = None) -> Labels:
    """A box of ``width`` × ``width`` voxels from slice ``first`` to before ``last``."""
    labels = np.zeros(SOURCE.shape, np.uint8) if seen is None else seen
    labels[20 : 20 + width, 20 : 20 + width, first:last] = label
    return labels


def test_what_comes_back_whole_or_was_never_there_raises_nothing() -> None:
    lesion = box(3, 20, 32, 10, box(2, 12, 40))
    assert way_back(lesion, WHOLE) == {}
    assert way_back(lesion, SOURCE) == {}
    assert way_back(np.zeros_like(lesion), WHOLE) == {}


def test_a_tumour_beyond_the_image_is_nothing_found_with_its_volume() -> None:
    flags = way_back(box(2, 40, 50), SLAB)
    assert set(flags) == {("nothing-found", "WT"), ("lost-on-the-way-back", "WT")}
    assert "4.00 mL" in flags["nothing-found", "WT"].reason
    assert flags["lost-on-the-way-back", "WT"].value == 1.0


def test_a_tumour_that_the_image_cuts_reaches_its_border() -> None:
    flags = way_back(box(2, 20, 34), SLAB)
    assert ("at-image-border", "WT") in flags
    assert flags["lost-on-the-way-back", "WT"].value == pytest.approx(1 - 10.25 / 14, abs=0.15)


def test_a_border_that_was_told_of_what_was_seen_is_not_told_again() -> None:
    assert ("at-image-border", "WT") not in way_back(box(2, 0, 12), SLAB)


def test_a_lesion_too_thin_for_the_slices_is_told_beside_a_large_one() -> None:
    seen = box(2, 12, 40)
    seen[24:28, 24:28, 24:26] = 3  # 0.032 mL, a third of a slice
    flags = way_back(seen, WHOLE)
    assert set(flags) == {("lost-on-the-way-back", region) for region in ("TC", "ET")}
    assert "0.00 mL of the 0.03 mL of ET" in flags["lost-on-the-way-back", "ET"].reason
    seen[24:28, 24:28, 24:26] = 2
    seen[24, 24, 24:26] = 3  # two voxels are noise
    assert way_back(seen, WHOLE) == {}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["01481", "01485", "01659", "01660"])
def test_true_label_maps_lose_nothing_worth_a_word_in_thick_slices(
    real_cases: Path, case: str
) -> None:
    from model_core.imaging.nifti import read_label_map

    (truth,) = real_cases.glob(f"*_{case}/*_seg.nii.gz")
    labels, volume = read_label_map(truth, argument="truth")
    x, y, z = volume.shape
    target = Grid((x, y, -(-z // 7)), volume.affine @ np.diag([1.0, 1.0, 7.0, 1.0]))
    back = carry_labels(labels, volume.grid, target)
    assert check_way_back(labels, volume.grid, back, target) == ()
