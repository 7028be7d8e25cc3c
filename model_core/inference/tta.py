"""Mirror test-time augmentation: predict flipped copies, flip the answers back, average.

What is averaged are the raw *logits* of each window, as nnU-Net does, with equal weights. For a
network that is equivariant to flips every pass gives the same answer and nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from model_core.errors import OptionError
from model_core.inference.sliding_window import Predictor
from model_core.types import TTA_MODES, Tta

AVERAGED = "logits"
"""What the passes are averaged in, as stated in reports."""

Flip = tuple[int, ...]
"""Spatial axes, counted from 0, that one pass mirrors."""


def mirror_passes(mode: Tta, axes: Sequence[int]) -> tuple[Flip, ...]:
    """The flips of a mode, the identity first.

    Args:
        mode: ``none`` 1 pass, as fast as it gets; ``fast`` identity and each single flip (4 passes
            for 3 axes); ``full`` all combinations (8 passes), the most robust and 8 times as slow.
        axes: spatial axes that the network was trained to see mirrored.

    Raises:
        OptionError: for a mode that is not one of these, or axes that are no spatial axes.
    """
    ordered = tuple(sorted(set(axes)))
    if ordered and not 0 <= ordered[0] <= ordered[-1] <= 2:
        raise OptionError(
            "mirror_axes",
            expected="spatial axes among 0, 1, 2",
            got=str(tuple(axes)),
            way_out="Correct mirror_axes in the model card.",
        )
    if mode not in TTA_MODES:
        raise OptionError(
            "tta",
            expected=f"one of {', '.join(TTA_MODES)}",
            got=repr(mode),
            way_out="Choose one of these, or leave it out for the model's default.",
        )
    most = {"none": 0, "fast": min(1, len(ordered)), "full": len(ordered)}[mode]
    return tuple(flip for count in range(most + 1) for flip in combinations(ordered, count))


def predict_mirrored(
    predict: Predictor,
    batch: Tensor,
    passes: Sequence[Flip],
    *,
    seen: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Mean logits over mirrored passes, each turned back before it is added.

    The passes run one after another: on a CPU a larger batch is no faster and needs more memory.

    Args:
        predict: takes (N, C, *window), returns logits (N, K, *window).
        batch: (N, C, *window); left unchanged.
        passes: as from `mirror_passes`; at least one.
        seen: shown the logits of each pass, turned back, where there are several.

    Returns:
        float32 (N, K, *window); with a single unmirrored pass exactly what `predict` returns.
    """
    assert passes, "there is always the identity"
    first, *others = passes
    mean = _one_pass(predict, batch, first)
    if not others:
        return mean
    if seen is not None:
        seen(mean)
    mean = mean.float() / len(passes)
    for flip in others:
        logits = _one_pass(predict, batch, flip)
        if seen is not None:
            seen(logits)
        mean.add_(logits, alpha=1 / len(passes))
    return mean


def _one_pass(predict: Predictor, batch: Tensor, flip: Flip) -> Tensor:
    if not flip:
        return predict(batch)
    dims = [axis + 2 for axis in flip]
    return torch.flip(predict(torch.flip(batch, dims)), dims)
