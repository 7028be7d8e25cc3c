"""The loss has the values that its formula gives by hand."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses import SegmentationLoss, region_targets

SMOOTH = 1e-5
LABELS = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).reshape(1, 4, 1, 1)


def test_regions_are_nested_masks_of_the_labels() -> None:
    masks = region_targets(LABELS).flatten(2)[0]
    assert masks.tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]


def test_undecided_region_logits_cost_half_probabilities() -> None:
    loss = SegmentationLoss("regions")(torch.zeros(1, 3, 4, 1, 1), LABELS)
    # with p = 1/2 everywhere and t positives of 4: Dice = 2·(t/2) / (t + 2)
    dice = [1 - (t + SMOOTH) / (t + 2 + SMOOTH) for t in (3, 2, 1)]
    assert float(loss) == pytest.approx(math.log(2) + sum(dice) / 3, rel=1e-5)


def test_undecided_label_logits_cost_quarter_probabilities() -> None:
    loss = SegmentationLoss("labels")(torch.zeros(1, 4, 4, 1, 1), LABELS)
    # one voxel per class, p = 1/4: Dice = 2·(1/4) / (1 + 1)
    assert float(loss) == pytest.approx(math.log(4) + 0.75, rel=1e-4)


@pytest.mark.parametrize("heads", ["regions", "labels"])
def test_certain_and_right_logits_cost_nothing(heads: str) -> None:
    if heads == "regions":
        target = region_targets(LABELS)
    else:
        target = torch.nn.functional.one_hot(LABELS.long(), 4).movedim(-1, 1).float()
    loss = SegmentationLoss(heads)((target * 2 - 1) * 50, LABELS)  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(0, abs=1e-4)


def test_a_patch_without_tumour_does_not_change_the_dice_of_its_neighbour() -> None:
    """Dice is pooled over the batch: an empty patch with certain zeros adds nothing to it."""
    empty = torch.zeros_like(LABELS)
    logits = torch.randn(1, 3, 4, 1, 1, generator=torch.Generator().manual_seed(0))
    both = torch.cat([logits, torch.full_like(logits, -50)])
    loss = SegmentationLoss("regions")
    alone = loss.dice(logits, region_targets(LABELS))
    together = loss.dice(both, region_targets(torch.cat([LABELS, empty])))
    assert float(together) == pytest.approx(float(alone), rel=1e-5)


def test_half_precision_logits_are_judged_in_float32() -> None:
    loss = SegmentationLoss("regions")(torch.zeros(1, 3, 4, 1, 1, dtype=torch.bfloat16), LABELS)
    assert loss.dtype == torch.float32
