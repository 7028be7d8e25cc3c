"""Pseudo-Dice: Dice pooled over an epoch's patches per region, and its moving average.

Source: nnU-Net (Isensee et al. 2021), which sums true positives, false positives and false
negatives over patches, so that one number per region comes of them, and smooths the mean with 0.9.
*Pseudo* because patches are no cases: it shows a run's trend, it does not judge a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from training.loop.losses import region_targets
from training.task import Task

SMOOTHING: Final = 0.9

Total = Callable[[Tensor], Tensor]
"""Sums over the processes."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch came to."""

    step: int
    """The last step of it."""
    train_loss: float
    """Mean over its steps."""
    pseudo_dice: Mapping[str, float]
    """Per region that the patches or the network showed at all."""
    mean: float | None
    average: float | None
    """Moving average of `mean` up to here."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "pseudo_dice": dict(self.pseudo_dice)}


class PseudoDice:
    """Sums of the running epoch, and the epochs before it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.history: list[Epoch] = []
        self._counts = torch.zeros(3, len(task.regions), dtype=torch.int64)
        self._losses = torch.zeros(2, dtype=torch.float64)

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take in logits (B, K, X, Y, Z) and their truth (B, X, Y, Z)."""
        truth = region_targets(labels, self.task).bool()
        if self.task.heads == "regions":
            found = logits > 0
        else:
            found = region_targets(logits.argmax(dim=1).to(torch.uint8), self.task).bool()
        axes = (0, *range(2, truth.dim()))
        counts = torch.stack([(found & truth).sum(axes), found.sum(axes), truth.sum(axes)])
        self._counts = self._counts.to(counts.device) + counts  # no wait for a GPU

    def add_loss(self, loss: float) -> None:
        """Take in the loss of one step."""
        self._losses += torch.tensor([loss, 1.0], dtype=torch.float64)

    def close_epoch(self, step: int, total: Total = lambda sums: sums) -> Epoch:
        """End the epoch at `step`; `total` sums the counts over the processes."""
        hits, found, truth = total(self._counts).tolist()
        loss, steps = self._losses.tolist()
        dice = {
            region.name: 2 * hit / (f + t)
            for region, hit, f, t in zip(self.task.regions, hits, found, truth, strict=True)
            if f + t
        }
        mean = sum(dice.values()) / len(dice) if dice else None
        epoch = Epoch(
            step=step,
            train_loss=loss / max(steps, 1.0),
            pseudo_dice=dice,
            mean=mean,
            average=self._averaged(mean),
        )
        self.history.append(epoch)
        self._counts = torch.zeros_like(self._counts)
        self._losses = torch.zeros_like(self._losses)
        return epoch

    def state(self, total: Total = lambda sums: sums) -> dict[str, Any]:
        """For a checkpoint: the counts of all processes, the losses, the history."""
        return {
            "counts": total(self._counts.cpu().clone()),
            "losses": self._losses.clone(),
            "history": [epoch.to_json() for epoch in self.history],
        }

    def load(self, state: Mapping[str, Any], *, counts: bool = True) -> None:
        """Restore what `state` gave; of several processes only one takes the `counts`."""
        self._counts = state["counts"].clone() if counts else torch.zeros_like(self._counts)
        self._losses = state["losses"].clone()
        self.history = [Epoch(**epoch) for epoch in state["history"]]

    def _averaged(self, mean: float | None) -> float | None:
        before = self.history[-1].average if self.history else None
        if mean is None or before is None:
            return before if mean is None else mean
        return SMOOTHING * before + (1 - SMOOTHING) * mean
