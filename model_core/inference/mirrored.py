"""Mirrored passes of a network as one predictor, with a count of how far they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from model_core.findings.agreement import Votes
from model_core.inference.sliding_window import Predictor
from model_core.inference.tta import Flip, predict_mirrored
from model_core.labels import LabelArray
from model_core.types import Region


class Mirrored:
    """Averages passes, and lets each vote where there are several.

    Args:
        predict: one pass, (N, C, *window) → logits (N, K, *window).
        passes: as from `model_core.inference.tta.mirror_passes`.
        read: logits (K, *window), float32 → labels (*window).
    """

    def __init__(
        self, predict: Predictor, passes: Sequence[Flip], read: Callable[[Tensor], Tensor]
    ) -> None:
        self._predict, self._passes, self._read = predict, passes, read
        self._votes = Votes(len(passes)) if len(passes) > 1 else None

    def __call__(self, batch: Tensor) -> Tensor:
        """Mean logits of a batch."""
        if self._votes is None:
            return predict_mirrored(self._predict, batch, self._passes)
        maps: list[LabelArray] = []

        def seen(logits: Tensor) -> None:
            labels = [self._read(one.float()).cpu().numpy() for one in logits]
            maps.append(np.stack(labels))

        mean = predict_mirrored(self._predict, batch, self._passes, seen=seen)
        self._votes.add(maps)
        return mean

    def agreement(self) -> dict[Region, float]:
        """Mean Dice of two passes by region, so far; empty where there is one pass."""
        return {} if self._votes is None else self._votes.agreement()
