"""Walk the windows of an image with any callable as the network, and blend what it says.

Shape suffix legend: N windows at once, C contrasts, K classes, XYZ the spatial axes (any number of
axes works; three are written). Knows no model, no file and no label: scores in, scores out.

An image smaller than the window is padded with zeros to one whole window, never the window cut to
the image: networks with instance norm take their statistics from the window, and a smaller one
would move them (see docs/concepts/windows.md).
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.errors import Cancelled, NumericalError, ShapeError
from model_core.inference.blending import WeightedMean, blend_weights
from model_core.inference.windows import Window, WindowPlan, padding_to, plan_windows
from model_core.types import CancelCheck, Progress

Predictor = Callable[[Tensor], Tensor]
"""Takes (N, C, *window), returns raw scores (N, K, *window)."""

INFER_STAGE = "infer"
"""The stage name given to the progress callback."""


def sliding_window(
    predict: Predictor,
    image: Tensor,
    *,
    plan: WindowPlan,
    progress: Progress | None = None,
    cancelled: CancelCheck | None = None,
    on_window: Callable[[float], None] | None = None,
) -> Tensor:
    """Predict an image of any size window by window.

    Args:
        predict: the network or any callable of that shape; called under the caller's grad mode.
        image: float32 (C, X, Y, Z). Windows and the result live on its device.
        plan: window size, overlap, batch and blending.
        progress: told ``("infer", windows done, windows in all)``, starting with 0.
        cancelled: asked before each batch of windows.
        on_window: told the seconds of each window (of a batch: its equal share).

    Returns:
        Raw scores, float32 (K, X, Y, Z), on the device of `image`.

    Raises:
        Cancelled: `cancelled` answered yes; nothing is kept.
        NumericalError: a window's scores hold NaN or infinity.
        ShapeError: `image` or what `predict` returns has the wrong shape.
    """
    padded, inside = _pad_to_window(image, plan)
    windows = plan_windows(padded.shape[1:], plan.window, plan.overlap)
    weights = blend_weights(plan.blend, plan.window, image.device)
    mean: WeightedMean | None = None
    done = 0
    _tell(progress, done, len(windows))
    for some in _in_batches(windows, plan.batch):
        raise_if_cancelled(cancelled)
        began = perf_counter()
        scores_NKXYZ = _predict_windows(predict, padded, some)
        mean = mean or WeightedMean(scores_NKXYZ.shape[1], padded.shape[1:], weights)
        _add_all(mean, some, scores_NKXYZ)
        done += len(some)
        _tell_seconds(on_window, perf_counter() - began, len(some))
        _tell(progress, done, len(windows))
    assert mean is not None, "an image has at least one window"
    return mean.result()[(slice(None), *inside)]


def raise_if_cancelled(cancelled: CancelCheck | None) -> None:
    """Raise `Cancelled` when the caller wants to stop."""
    if cancelled is not None and cancelled():
        raise Cancelled("The segmentation was cancelled; nothing was written.")


def _pad_to_window(image: Tensor, plan: WindowPlan) -> tuple[Tensor, Window]:
    """The image with room for one whole window, and where the image lies in it."""
    shape = image.shape[1:]
    if len(shape) != len(plan.window) or 0 in image.shape:
        raise ShapeError(
            f"image: expected (C, *spatial) with {len(plan.window)} spatial axes and no empty one, "
            f"got {tuple(image.shape)}."
        )
    padding = padding_to(shape, plan.window)
    inside = tuple(slice(low, low + size) for (low, _), size in zip(padding, shape, strict=True))
    if not any(low or high for low, high in padding):
        return image, inside
    # F.pad counts the axes from the last to the first.
    return F.pad(image, [amount for pair in reversed(padding) for amount in pair]), inside


def _in_batches(windows: tuple[Window, ...], batch: int) -> list[tuple[Window, ...]]:
    return [windows[i : i + batch] for i in range(0, len(windows), batch)]


def _predict_windows(predict: Predictor, image: Tensor, some: tuple[Window, ...]) -> Tensor:
    """Scores (N, K, *window) of N windows, checked for shape and finite values."""
    batch_NCXYZ = torch.stack([image[(slice(None), *where)] for where in some])
    scores = predict(batch_NCXYZ)
    expected = (len(some), *batch_NCXYZ.shape[2:])
    if scores.ndim != batch_NCXYZ.ndim or (scores.shape[0], *scores.shape[2:]) != expected:
        raise ShapeError(
            f"The network must answer (N, K, *window) for windows {tuple(batch_NCXYZ.shape)}, "
            f"it answered {tuple(scores.shape)}."
        )
    if not _is_finite(scores):
        raise NumericalError(_explain(batch_NCXYZ, scores, some))
    return scores


def _is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite: one pass, no mask in memory (NaN wins in aminmax)."""
    low, high = torch.aminmax(values.detach())
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _explain(batch_NCXYZ: Tensor, scores: Tensor, some: tuple[Window, ...]) -> str:
    """Which window went wrong, and why it probably did."""
    guilty = next(i for i in range(len(some)) if not _is_finite(scores[i]))
    corner = ", ".join(f"{where.start}:{where.stop}" for where in some[guilty])
    if not _is_finite(batch_NCXYZ[guilty]):
        cause = "its input already holds NaN or infinity; check the images and their normalisation"
    elif scores.dtype != torch.float32:
        cause = f"the network ran in {scores.dtype}; run it in float32"
    else:
        cause = "the network made it from finite input; its weights are damaged or diverged"
    return f"Scores of window [{corner}] hold NaN or infinity: {cause}."


def _add_all(mean: WeightedMean, some: tuple[Window, ...], scores_NKXYZ: Tensor) -> None:
    if scores_NKXYZ.shape[1] != mean.channels:
        raise ShapeError(
            f"The network answered {mean.channels} classes for one window and "
            f"{scores_NKXYZ.shape[1]} for another; every window needs the same."
        )
    for where, scores in zip(some, scores_NKXYZ, strict=True):
        mean.add(where, scores)


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(INFER_STAGE, done, total)


def _tell_seconds(on_window: Callable[[float], None] | None, seconds: float, count: int) -> None:
    if on_window is not None:
        for _ in range(count):
            on_window(seconds / count)
