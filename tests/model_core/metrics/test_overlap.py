"""Dice, sensitivity and specificity against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from model_core.errors import InputError
from model_core.metrics import dice, region_dice, sensitivity, specificity

# 10 voxels: TP 2, FP 1, FN 3, TN 4
PRED = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
TRUTH = np.array([1, 1, 0, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
NONE = np.zeros(10, dtype=bool)
ALL = np.ones(10, dtype=bool)
masks = hnp.arrays(bool, 12, elements=st.booleans())


def test_counts_by_hand() -> None:
    assert dice(PRED, TRUTH) == pytest.approx(4 / 8)
    assert sensitivity(PRED, TRUTH) == pytest.approx(2 / 5)
    assert specificity(PRED, TRUTH) == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("pred", "truth", "expected"),
    [
        (NONE, NONE, (1.0, 1.0, 1.0)),
        (TRUTH, NONE, (0.0, 0.0, 0.5)),
        (NONE, TRUTH, (0.0, 0.0, 1.0)),
        (ALL, ALL, (1.0, 1.0, 1.0)),
        (NONE, ALL, (0.0, 0.0, 1.0)),
    ],
)
def test_empty_and_full_masks(
    pred: NDArray[np.bool_], truth: NDArray[np.bool_], expected: tuple[float, float, float]
) -> None:
    got = dice(pred, truth), sensitivity(pred, truth), specificity(pred, truth)
    assert got == expected


@settings(deadline=None)
@given(masks, masks)
def test_dice_is_symmetric_and_one_only_for_equal_masks(
    first: NDArray[np.bool_], second: NDArray[np.bool_]
) -> None:
    score = dice(first, second)
    assert score == dice(second, first)
    assert 0 <= score <= 1
    assert (score == 1) == np.array_equal(first, second)


def test_region_dice_scores_the_nested_regions() -> None:
    pred = np.array([1, 2, 3, 0], dtype=np.uint8)
    truth = np.array([1, 2, 2, 3], dtype=np.uint8)
    assert region_dice(pred, truth) == {
        "WT": pytest.approx(6 / 7),
        "TC": pytest.approx(2 / 4),
        "ET": 0.0,
    }


def test_label_maps_are_not_taken_for_masks() -> None:
    with pytest.raises(InputError, match=r"^truth: expected a boolean mask, got dtype uint8"):
        dice(PRED, TRUTH.astype(np.uint8))


def test_masks_of_two_grids_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape of the truth, \(10,\), got \(9,\)"):
        dice(PRED[:9], TRUTH)
