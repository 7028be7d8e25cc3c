"""Walk the windows of an image with any callable as the network, and blend what it says.

Shape suffix legend: N windows at once, C contrasts, K classes, XYZ the spatial axes (any number of
axes works; three are written). Knows no model, no file and no label: scores in, scores out.

`sliding_window` gives the weighted mean of the scores everywhere, `sliding_slabs` hands out their
weighted sums slab by slab and needs less memory; both walk the same way.

An image smaller than the window is padded with zeros to one whole window, never the window cut to
the image: networks with instance norm take their statistics from the window, and a smaller one
would move them (see docs/concepts/windows.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.errors import Cancelled, NumericalError, ShapeError
from model_core.inference.blending import FinishedSlabs, WeightedMean, blend_weights
from model_core.inference.lanes import Batch, Lane, one_by_one
from model_core.inference.lanes import Predictor as Predictor
from model_core.inference.windows import Window, WindowPlan, padding_to, plan_windows
from model_core.types import CancelCheck, Progress

INFER_STAGE = "infer"
"""The stage name given to the progress callback."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who is told about a walk, and who may stop it.

    Attributes:
        progress: told ``("infer", windows done, windows in all)``, starting with 0.
        cancelled: asked before each batch of windows.
        on_window: told the seconds of each window (of a batch: its equal share).
    """

    progress: Progress | None = None
    cancelled: CancelCheck | None = None
    on_window: Callable[[float], None] | None = None


def sliding_window(
    predict: Predictor,
    image: Tensor,
    *,
    plan: WindowPlan,
    progress: Progress | None = None,
    cancelled: CancelCheck | None = None,
    on_window: Callable[[float], None] | None = None,
    lane: Lane = one_by_one,
) -> Tensor:
    """Predict an image of any size window by window.

    Args:
        predict: the network or any callable of that shape; called under the caller's grad mode.
        image: float32 (C, X, Y, Z). Windows and the result live on its device.
        plan: window size, overlap, batch and blending.
        progress: see `Watch`.
        cancelled: see `Watch`.
        on_window: see `Watch`.
        lane: in which order windows are copied and predicted; the result does not depend on it.

    Returns:
        Raw scores, float32 (K, X, Y, Z), on the device of `image`.

    Raises:
        Cancelled: `cancelled` answered yes; nothing is kept.
        NumericalError: a window's scores hold NaN or infinity.
        ShapeError: `image` or what `predict` returns has the wrong shape.
    """
    watch = Watch(progress=progress, cancelled=cancelled, on_window=on_window)
    padded, inside = _pad_to_window(image, plan)
    mean = _walk(predict, padded, plan, WeightedMean, watch, lane)
    return mean.result()[(slice(None), *inside)]


def sliding_slabs(
    predict: Predictor,
    image: Tensor,
    finished: Callable[[slice, Tensor], None],
    *,
    plan: WindowPlan,
    watch: Watch,
    lane: Lane = one_by_one,
) -> None:
    """Predict like `sliding_window`, and hand out the scores' weighted sums as they are finished.

    The sums are not divided by the weights. Where a voxel's highest score is wanted, or which are
    above 0, that division would change nothing; left out, no total of weights is kept, nor any
    row that no later window touches.

    Args:
        predict: as for `sliding_window`.
        image: as for `sliding_window`.
        finished: told ``(rows, sums)``: a slice of the first axis, in order and without gaps, and
            float32 (K, rows, Y, Z), a view that is overwritten afterwards.
        plan: window size, overlap, batch and blending.
        watch: who is told, who may stop.
        lane: as for `sliding_window`.

    Raises:
        Cancelled, NumericalError, ShapeError: as `sliding_window`.
    """
    padded, inside = _pad_to_window(image, plan)

    def without_padding(first: int, sums: Tensor) -> None:
        low, high = inside[0].start, inside[0].stop
        start, stop = max(first, low), min(first + sums.shape[1], high)
        if start < stop:
            rows = slice(start - first, stop - first)
            finished(slice(start - low, stop - low), sums[(slice(None), rows, *inside[1:])])

    def begin(channels: int, shape: torch.Size, weights: Tensor) -> FinishedSlabs:
        return FinishedSlabs(channels, shape, weights, without_padding)

    _walk(predict, padded, plan, begin, watch, lane).close()


def raise_if_cancelled(cancelled: CancelCheck | None) -> None:
    """Raise `Cancelled` when the caller wants to stop."""
    if cancelled is not None and cancelled():
        raise Cancelled("The segmentation was cancelled; nothing was written.")


class _Blender(Protocol):
    """What takes the windows' scores in."""

    @property
    def channels(self) -> int:
        """K."""

    def add(self, where: Window, scores: Tensor) -> bool:
        """Add (K, *window); false if a score is NaN or infinite."""


_B = TypeVar("_B", bound=_Blender)


def _walk(
    predict: Predictor,
    image: Tensor,
    plan: WindowPlan,
    begin: Callable[[int, torch.Size, Tensor], _B],
    watch: Watch,
    lane: Lane,
) -> _B:
    """Add every window of `image` to a blender, begun when the first scores tell K."""
    windows = plan_windows(image.shape[1:], plan.window, plan.overlap, plan.tiling)
    weights = blend_weights(plan.blend, plan.window, image.device, plan.tiling)
    batches = _batches(image, _in_batches(windows, plan.batch), watch.cancelled)
    blender: _B | None = None
    done = 0
    _tell(watch.progress, done, len(windows))
    began = perf_counter()
    with closing(lane(partial(_predict, predict), batches)) as passed:
        for some, batch_NCXYZ, scores_NKXYZ in passed:
            blender = blender or begin(scores_NKXYZ.shape[1], image.shape[1:], weights)
            _add_all(blender, some, batch_NCXYZ, scores_NKXYZ)
            del batch_NCXYZ, scores_NKXYZ  # before the next window needs the room
            done += len(some)
            _tell_seconds(watch.on_window, perf_counter() - began, len(some))
            _tell(watch.progress, done, len(windows))
            began = perf_counter()
    assert blender is not None, "an image has at least one window"
    return blender


def _batches(
    image: Tensor, cuts: list[Batch], cancelled: CancelCheck | None
) -> Iterator[tuple[Batch, Tensor]]:
    """The windows, batch by batch, each cut when it is asked for, unless the caller has enough."""
    for some in cuts:
        raise_if_cancelled(cancelled)
        yield some, _cut(image, some)


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


def _in_batches(windows: Batch, batch: int) -> list[Batch]:
    return [windows[i : i + batch] for i in range(0, len(windows), batch)]


def _cut(image: Tensor, some: Batch) -> Tensor:
    """The windows (N, C, *window); a single one is a view, for the network copies it anyway."""
    cuts = [image[(slice(None), *where)] for where in some]
    return cuts[0].unsqueeze(0) if len(cuts) == 1 else torch.stack(cuts)


def _predict(predict: Predictor, batch_NCXYZ: Tensor) -> Tensor:
    """Scores (N, K, *window) of N windows, checked for their shape."""
    scores = predict(batch_NCXYZ)
    expected = (batch_NCXYZ.shape[0], *batch_NCXYZ.shape[2:])
    if scores.ndim != batch_NCXYZ.ndim or (scores.shape[0], *scores.shape[2:]) != expected:
        raise ShapeError(
            f"The network must answer (N, K, *window) for windows {tuple(batch_NCXYZ.shape)}, "
            f"it answered {tuple(scores.shape)}."
        )
    return scores


def _add_all(blender: _Blender, some: Batch, batch_NCXYZ: Tensor, scores_NKXYZ: Tensor) -> None:
    if scores_NKXYZ.shape[1] != blender.channels:
        raise ShapeError(
            f"The network answered {blender.channels} classes for one window and "
            f"{scores_NKXYZ.shape[1]} for another; every window needs the same."
        )
    for where, image, scores in zip(some, batch_NCXYZ, scores_NKXYZ, strict=True):
        if not blender.add(where, scores):
            raise NumericalError(_explain(image, scores, where))


def _explain(image: Tensor, scores: Tensor, where: Window) -> str:
    """Which window went wrong, and why it probably did."""
    corner = ", ".join(f"{side.start}:{side.stop}" for side in where)
    if not bool(torch.isfinite(image).all()):
        cause = "its input already holds NaN or infinity; check the images and their normalisation"
    elif scores.dtype != torch.float32:
        cause = f"the network ran in {scores.dtype}; run it in float32"
    else:
        cause = "the network made it from finite input; its weights are damaged or diverged"
    return f"Scores of window [{corner}] hold NaN or infinity: {cause}."


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(INFER_STAGE, done, total)


def _tell_seconds(on_window: Callable[[float], None] | None, seconds: float, count: int) -> None:
    if on_window is not None:
        for _ in range(count):
            on_window(seconds / count)
