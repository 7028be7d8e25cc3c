"""What the windows of a run found, before it is a label map on the study's grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from model_core.labels import LabelArray
from model_core.types import Region


class Found(NamedTuple):
    """What a run found, and where.

    `answer` is uint8 labels (X, Y, Z), read from the sums while the windows walk; where the spacing
    differs, float32 scores (K, X, Y, Z), for they have to be interpolated first, with the votes
    behind them where these are kept. On the CPU. `dissents` is uint8 (label, X, Y, Z), read from
    the votes likewise; None where they are not kept or not read yet.
    """

    answer: Tensor
    dissents: LabelArray | None
    agreement: Mapping[Region, float]
    window_seconds: tuple[float, ...]
    device: str
    backend: str


def doubts_about(labels: LabelArray) -> tuple[str, ...]:
    """What a person should know of label maps like this one."""
    if labels.any():
        return ()
    return ("No tumour was found. Check that the contrasts are not mixed up.",)
