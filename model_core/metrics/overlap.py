"""Voxel overlap of two masks: Dice, sensitivity, specificity. Unitless, 0 to 1.

Glossary. TP, FP, FN, TN: voxels in both masks, in the prediction only, in the truth only, in
neither. Where a quotient has nothing to count (an empty denominator), the value is 1: nothing was
asked for and nothing was got wrong.
"""

from __future__ import annotations

import numpy as np

from model_core.errors import InputError
from model_core.labels import LabelArray, Mask, region_mask
from model_core.types import REGION_LABELS, Region


def dice(pred: Mask, truth: Mask) -> float:
    """2 TP / (2 TP + FP + FN); both masks empty → 1, one empty → 0."""
    require_masks(pred, truth)
    total = np.count_nonzero(pred) + np.count_nonzero(truth)
    return _ratio(2 * int(np.count_nonzero(pred & truth)), int(total))


def sensitivity(pred: Mask, truth: Mask) -> float:
    """TP / (TP + FN): the share of the truth that was found; empty truth and prediction → 1.

    An empty truth with a non-empty prediction scores 0, as in the BraTS evaluation.
    """
    require_masks(pred, truth)
    wanted = int(np.count_nonzero(truth))
    if not wanted:
        return 0.0 if pred.any() else 1.0
    return int(np.count_nonzero(pred & truth)) / wanted


def specificity(pred: Mask, truth: Mask) -> float:
    """TN / (TN + FP): the share of the volume outside the truth that was left alone."""
    require_masks(pred, truth)
    outside = truth.size - int(np.count_nonzero(truth))
    false_positive = int(np.count_nonzero(pred)) - int(np.count_nonzero(pred & truth))
    return _ratio(outside - false_positive, outside)


def region_dice(pred: LabelArray, truth: LabelArray) -> dict[Region, float]:
    """Dice of WT, TC and ET of two internal label maps: the cheap score, for validation loops."""
    return {
        region: dice(region_mask(pred, region), region_mask(truth, region))
        for region in REGION_LABELS
    }


def require_masks(pred: Mask, truth: Mask) -> None:
    """Refuse anything but two boolean arrays of one shape.

    Raises:
        InputError: naming the array at fault.
    """
    for name, mask in (("pred", pred), ("truth", truth)):
        if mask.dtype != np.bool_:
            raise InputError(
                name,
                expected="a boolean mask",
                got=f"dtype {mask.dtype}",
                way_out="Use region_mask(labels, region) first.",
            )
    if pred.shape != truth.shape:
        raise InputError(
            "pred",
            expected=f"the shape of the truth, {truth.shape}",
            got=f"{pred.shape}",
            way_out="Compare maps on one grid.",
        )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
