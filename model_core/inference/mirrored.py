"""Mirrored passes of a network as one predictor, with a count of how far they agree.

How they vote at every voxel can be kept too. The shares of the votes for each label then travel
behind the logits as further channels, so that they are weighted and blended as the logits are; a
division of the sums of votes gives the shares back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from model_core.findings.agreement import Votes
from model_core.inference.sliding_window import Predictor
from model_core.inference.tta import Flip, predict_mirrored
from model_core.labels import LabelArray
from model_core.types import Label, Region

BALLOT: Final = len(Label)
"""Channels of votes behind those of the logits: one a label, the background's first."""


class Mirrored:
    """Averages passes, and lets each vote where there are several.

    Args:
        predict: one pass, (N, C, *window) → logits (N, K, *window).
        passes: as from `model_core.inference.tta.mirror_passes`.
        read: logits (K, *window), float32 → labels (*window).
        ballots: whether the shares of votes follow the logits, `BALLOT` channels; only where there
            are several passes.
    """

    def __init__(
        self,
        predict: Predictor,
        passes: Sequence[Flip],
        read: Callable[[Tensor], Tensor],
        *,
        ballots: bool = False,
    ) -> None:
        self._predict, self._passes, self._read = predict, passes, read
        self._votes = Votes(len(passes)) if len(passes) > 1 else None
        self.ballots = ballots and self._votes is not None

    def __call__(self, batch: Tensor) -> Tensor:
        """Mean logits of a batch, and the shares of votes where they are kept."""
        if self._votes is None:
            return predict_mirrored(self._predict, batch, self._passes)
        maps: list[LabelArray] = []

        def seen(logits: Tensor) -> None:
            labels = [self._read(one.float()).cpu().numpy() for one in logits]
            maps.append(np.stack(labels))

        mean = predict_mirrored(self._predict, batch, self._passes, seen=seen)
        self._votes.add(maps)
        return torch.cat([mean, _shares(maps, mean)], dim=1) if self.ballots else mean

    def agreement(self) -> dict[Region, float]:
        """Mean Dice of two passes by region, so far; empty where there is one pass."""
        return {} if self._votes is None else self._votes.agreement()


def dissent(sums: Tensor) -> LabelArray:
    """How many passes vote otherwise than each label, in per cent.

    Args:
        sums: the `BALLOT` channels of votes (X, Y, Z), weighted, not divided.

    Returns:
        (label, X, Y, Z) uint8, 0 to 100.
    """
    shares = sums / sums.sum(dim=0, keepdim=True).clamp_min(torch.finfo(sums.dtype).tiny)
    return ((1 - shares) * 100).round_().to(torch.uint8).cpu().numpy()


def against(answer: LabelArray, dissents: Sequence[LabelArray]) -> LabelArray:
    """How many passes vote otherwise than the answer, in per cent, uint8 of its shape.

    Args:
        answer: internal labels.
        dissents: of each label, as `dissent` gives them, on the grid of the answer.
    """
    found: LabelArray = np.choose(answer, list(dissents))
    return found


def _shares(maps: Sequence[LabelArray], like: Tensor) -> Tensor:
    """Votes for each label (N, BALLOT, *window) as shares of all passes, as `like` is."""
    counted = [sum((one == label).astype(np.float32) for one in maps) for label in Label]
    shares = torch.from_numpy(np.stack(counted, axis=1) / len(maps))
    return shares.to(like)
