"""Pseudo-Dice is Dice of pooled counts, smoothed as nnU-Net does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from training.loop.pseudo_dice import PseudoDice
from training.task import BRATS, Task

LABELS = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).reshape(1, 4, 1, 1)


def region_logits(*masks: list[int]) -> torch.Tensor:
    return (torch.tensor(masks).float() * 2 - 1).reshape(1, len(masks), 4, 1, 1)


def test_counts_of_an_epoch_are_pooled_not_averaged() -> None:
    sums = PseudoDice(BRATS)
    perfect = region_logits([0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1])
    sums.add(perfect, LABELS)
    sums.add(region_logits([1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]), LABELS)
    epoch = sums.close_epoch(250)
    # WT: hits 6, found 7, truth 6; TC: hits 2, found 2, truth 4; ET: all
    assert epoch.pseudo_dice == pytest.approx({"WT": 12 / 13, "TC": 4 / 6, "ET": 1.0})
    assert epoch.mean == pytest.approx((12 / 13 + 4 / 6 + 1) / 3)


def test_label_heads_are_read_by_the_largest_logit() -> None:
    sums = PseudoDice(replace(BRATS, heads="labels"))
    logits = torch.nn.functional.one_hot(LABELS.long(), 4).movedim(-1, 1).float()
    sums.add(logits, LABELS)
    assert sums.close_epoch(1).pseudo_dice == {"WT": 1.0, "TC": 1.0, "ET": 1.0}


def test_the_average_moves_by_a_tenth() -> None:
    sums = PseudoDice(Task(channels=("MRI",), labels=("blob",)))
    truth = torch.ones(1, 2, 1, 1, dtype=torch.uint8)
    for found in (2.0, 0.0):
        sums.add(torch.tensor([0.0, found - 1]).reshape(1, 2, 1, 1, 1).repeat(1, 1, 2, 1, 1), truth)
        sums.close_epoch(1)
    assert [epoch.mean for epoch in sums.history] == [1.0, 0.0]
    assert [epoch.average for epoch in sums.history] == pytest.approx([1.0, 0.9])


def test_what_nobody_saw_is_left_out() -> None:
    sums = PseudoDice(BRATS)
    empty = torch.zeros_like(LABELS)
    nothing = region_logits([0] * 4, [0] * 4, [0] * 4)
    sums.add(region_logits([0, 1, 1, 1], [0] * 4, [0] * 4), LABELS * (LABELS == 2))
    epoch = sums.close_epoch(1)
    assert epoch.pseudo_dice == {"WT": 0.5}
    sums.add(nothing, empty)
    epoch = sums.close_epoch(2)
    assert epoch.mean is None
    assert epoch.average == 0.5


def test_the_loss_is_the_mean_of_the_epochs_steps() -> None:
    sums = PseudoDice(BRATS)
    for loss in (1.0, 2.0, 6.0):
        sums.add_loss(loss)
    assert sums.close_epoch(3).train_loss == 3.0
    assert sums.close_epoch(4).train_loss == 0.0


def test_an_epoch_survives_a_checkpoint_half_way() -> None:
    whole, halves = PseudoDice(BRATS), PseudoDice(BRATS)
    again = PseudoDice(BRATS)
    patches = [region_logits([1, 1, 1, 0], [0, 1, 0, 1], [1, 0, 0, 0]) * sign for sign in (1, -1)]
    for sums in (whole, halves):
        sums.add(patches[0], LABELS)
        sums.add_loss(0.5)
        sums.close_epoch(1)
        sums.add(patches[1], LABELS)
        sums.add_loss(0.25)
    again.load(halves.state())
    for sums in (whole, again):
        sums.add(patches[0], LABELS)
        sums.add_loss(1.5)
        sums.close_epoch(2)
    assert again.history == whole.history
