"""The loss has the values that its formula gives by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from monai.losses.dice import DiceLoss

from training.loop.losses import SegmentationLoss, region_targets, supervised_loss
from training.task import BRATS, Task

SMOOTH = 1e-5
LABEL_HEADS = replace(BRATS, heads="labels")
LABELS = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).reshape(1, 4, 1, 1)


def test_regions_are_nested_masks_of_the_labels() -> None:
    masks = region_targets(LABELS, BRATS).flatten(2)[0]
    assert masks.tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]


def test_undecided_region_logits_cost_half_probabilities() -> None:
    loss = SegmentationLoss(BRATS)(torch.zeros(1, 3, 4, 1, 1), LABELS)
    # with p = 1/2 everywhere and t positives of 4: Dice = 2·(t/2) / (t + 2)
    dice = [1 - (t + SMOOTH) / (t + 2 + SMOOTH) for t in (3, 2, 1)]
    assert float(loss) == pytest.approx(math.log(2) + sum(dice) / 3, rel=1e-5)


def test_undecided_label_logits_cost_quarter_probabilities() -> None:
    loss = SegmentationLoss(LABEL_HEADS)(torch.zeros(1, 4, 4, 1, 1), LABELS)
    # one voxel per class, p = 1/4: Dice = 2·(1/4) / (1 + 1)
    assert float(loss) == pytest.approx(math.log(4) + 0.75, rel=1e-4)


@pytest.mark.parametrize("heads", ["regions", "labels"])
def test_certain_and_right_logits_cost_nothing(heads: str) -> None:
    if heads == "regions":
        target = region_targets(LABELS, BRATS)
    else:
        target = torch.nn.functional.one_hot(LABELS.long(), 4).movedim(-1, 1).float()
    task = replace(BRATS, heads=heads)  # type: ignore[arg-type]
    loss = SegmentationLoss(task)((target * 2 - 1) * 50, LABELS)
    assert float(loss) == pytest.approx(0, abs=1e-4)


def test_a_patch_without_tumour_does_not_change_the_dice_of_its_neighbour() -> None:
    """Dice is pooled over the batch: an empty patch with certain zeros adds nothing to it."""
    empty = torch.zeros_like(LABELS)
    logits = torch.randn(1, 3, 4, 1, 1, generator=torch.Generator().manual_seed(0))
    both = torch.cat([logits, torch.full_like(logits, -50)])
    loss = SegmentationLoss(BRATS)
    alone = loss.dice(logits, LABELS)
    together = loss.dice(both, torch.cat([LABELS, empty]))
    assert float(together) == pytest.approx(float(alone), rel=1e-5)


def test_half_precision_logits_are_judged_in_float32() -> None:
    loss = SegmentationLoss(BRATS)(torch.zeros(1, 3, 4, 1, 1, dtype=torch.bfloat16), LABELS)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("heads", ["regions", "labels"])
def test_dice_is_that_of_monai(heads: str) -> None:
    task = replace(BRATS, heads=heads)  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, len(task.outputs), 4, 3, 5, generator=draw)
    labels = torch.randint(0, 4, (2, 4, 3, 5), generator=draw).to(torch.uint8)
    if heads == "regions":
        theirs = DiceLoss(sigmoid=True, batch=True)(logits, region_targets(labels, task))
    else:
        judge = DiceLoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)
        theirs = judge(logits, labels[:, None])
    assert float(SegmentationLoss(task).dice(logits, labels)) == pytest.approx(float(theirs))


def test_cross_entropy_alone_has_no_dice_in_it() -> None:
    loss = SegmentationLoss(LABEL_HEADS, "ce")(torch.zeros(1, 4, 4, 1, 1), LABELS)
    assert float(loss) == pytest.approx(math.log(4), rel=1e-5)
    loss = SegmentationLoss(BRATS, "ce")(torch.zeros(1, 3, 4, 1, 1), LABELS)
    assert float(loss) == pytest.approx(math.log(2), rel=1e-5)


def test_regions_of_any_task_are_judged() -> None:
    task = Task(channels=("MRI",), labels=("organ", "lesion"))
    assert region_targets(LABELS, task).flatten(2)[0].tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]


def test_coarser_outputs_weigh_half_as_much_each() -> None:
    """Losses 7 and 14 and 28 with weights 4/7, 2/7 and 1/7 are 4 + 4 + 4."""
    by_side = {4: 7.0, 2: 14.0, 1: 28.0}
    seen = []

    class Known(torch.nn.Module):
        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            assert logits.shape[2:] == labels.shape[1:]
            seen.append(labels.unique().tolist())
            return torch.tensor(by_side[logits.shape[-1]])

    outputs = [torch.zeros(1, 3, side, side, side) for side in by_side]
    labels = torch.full((1, 4, 4, 4), 2, dtype=torch.uint8)
    assert float(supervised_loss(Known(), outputs, labels)) == pytest.approx(12.0)
    assert seen == [[2], [2], [2]]


def test_a_pool_adds_what_other_processes_hold() -> None:
    """Two halves of a batch, each told the sums of both, judge as the whole does."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 1, 1, generator=draw)
    labels = torch.cat([LABELS, LABELS.flip(1)])
    whole = SegmentationLoss(BRATS).dice(logits, labels)
    sums: list[torch.Tensor] = []

    def note(here: torch.Tensor) -> torch.Tensor:
        sums.append(here)
        return here

    for place in range(2):
        SegmentationLoss(BRATS, pool=note).dice(logits[place, None], labels[place, None])
    half = SegmentationLoss(BRATS, pool=lambda here: here + sums[1])
    assert float(half.dice(logits[:1], labels[:1])) == pytest.approx(float(whole), rel=1e-6)
