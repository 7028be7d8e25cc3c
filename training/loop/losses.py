"""What a step is judged by: soft Dice plus cross-entropy, or cross-entropy alone.

Shapes: logits (B, K, X, Y, Z) float, labels (B, X, Y, Z) uint8 in the task's internal numbering.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import Loss
from training.loop.deep_supervision import coarser_labels, scale_weights
from training.task import Task

Pool = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes; gradients flow through this process's part."""

_SMOOTH: Final = 1e-5


class SegmentationLoss(nn.Module):
    """Cross-entropy, plus Dice where `kind` is ``dice-ce``; averages over channels, in float32.

    Dice is pooled over the batch: a patch without enhancing tumour would otherwise ask for a
    perfect zero and drown the patches that hold some. For region heads the cross-entropy is
    binary (regions may be nested, not exclusive); for label heads the background takes part in the
    cross-entropy but not in Dice.

    Args:
        task: how the channels are read.
        kind: ``dice-ce`` or ``ce``.
        pool: where the patches of a batch lie on several processes, the sum over them.
    """

    def __init__(self, task: Task, kind: Loss = "dice-ce", *, pool: Pool | None = None) -> None:
        super().__init__()
        self.task = task
        self.kind = kind
        self.pool = pool

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss (scalar) of `logits` against the truth `labels`."""
        logits = logits.float()
        if self.task.heads == "regions":
            cross_entropy = F.binary_cross_entropy_with_logits(
                logits, region_targets(labels, self.task)
            )
        else:
            cross_entropy = F.cross_entropy(logits, labels.long())
        return cross_entropy if self.kind == "ce" else self.dice(logits, labels) + cross_entropy

    def dice(self, logits: Tensor, labels: Tensor) -> Tensor:
        """1 - soft Dice, its mean over regions or over labels without the background."""
        if self.task.heads == "regions":
            probable, target = torch.sigmoid(logits), region_targets(labels, self.task)
        else:
            probable = torch.softmax(logits, dim=1)[:, 1:]
            values = torch.arange(1, logits.shape[1], device=labels.device, dtype=labels.dtype)
            shown = values.reshape(1, -1, *(1,) * (labels.dim() - 1))
            target = (labels[:, None] == shown).float()
        axes = [axis for axis in range(logits.dim()) if axis != 1]
        sums = torch.stack(
            [(probable * target).sum(axes), probable.sum(axes), target.sum(axes)]
        )  # (3, K)
        both, ours, theirs = self.pool(sums) if self.pool else sums
        loss: Tensor = (1 - (2 * both + _SMOOTH) / (ours + theirs + _SMOOTH)).mean()
        return loss


def supervised_loss(loss: nn.Module, outputs: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Weighted mean of `loss` over the resolutions, `outputs` being the full one first."""
    parts = [
        weight * loss(logits, coarser_labels(labels, logits.shape[2:]))
        for weight, logits in zip(scale_weights(len(outputs)), outputs, strict=True)
    ]
    return torch.stack(parts).sum()


def region_targets(labels: Tensor, task: Task) -> Tensor:
    """Float masks (B, R, X, Y, Z) of the task's regions from labels (B, X, Y, Z)."""
    masks = [
        torch.isin(labels, torch.tensor(region.labels, device=labels.device))
        for region in task.regions
    ]
    return torch.stack(masks, dim=1).float()
