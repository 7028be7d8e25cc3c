"""In which order windows are brought to the network and their scores taken in.

`one_by_one` is how a CPU works best. `Overlapped` is for images in the host's memory and a network
on a device: while it computes one batch of windows, the next one is on its way and the one before
is taken in. Both give the same scores in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from torch import Tensor

from model_core.inference.accelerator import Accelerator, Arriving, Returning
from model_core.inference.windows import Window

Predictor = Callable[[Tensor], Tensor]
"""Takes (N, C, *window), returns raw scores (N, K, *window). The batch may be a view of the image:
a predictor must not write into it."""

Batch = tuple[Window, ...]
"""Where the windows of one batch lie in the image."""

Passage = Generator[tuple[Batch, Tensor, Tensor], None, None]
"""Each batch with its windows and their scores, in order."""


class Lane(Protocol):
    """Takes batches of windows through a network."""

    def __call__(self, predict: Predictor, batches: Iterator[tuple[Batch, Tensor]]) -> Passage:
        """Take all batches through.

        Windows come back as they came, scores on the image's device; they are the caller's until
        it asks for the next batch.
        """


def one_by_one(predict: Predictor, batches: Iterator[tuple[Batch, Tensor]]) -> Passage:
    """Predict a batch when it is asked for; only one is in memory at a time."""
    for where, windows in batches:
        scores = predict(windows)
        yield where, windows, scores
        del windows, scores  # before the next window needs the room


class Overlapped:
    """Two batches on their way at once.

    Args:
        accelerator: copies, and knows when a copy has been made.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def __call__(self, predict: Predictor, batches: Iterator[tuple[Batch, Tensor]]) -> Passage:
        """See `Lane`. Whoever stops early closes the iterator, which waits for the copies."""
        try:
            yield from self._through(predict, batches)
        finally:
            self._accelerator.settle()

    def _through(self, predict: Predictor, batches: Iterator[tuple[Batch, Tensor]]) -> Passage:
        fetch = self._accelerator.fetch
        staged = self._staged(batches)
        coming = next(staged, None)
        before: tuple[Batch, Tensor, Returning] | None = None
        while coming is not None:
            where, windows, arriving = coming
            scores = fetch(predict(arriving.arrived()))
            arriving.consumed()
            coming = next(staged, None)
            if before is not None:
                yield before[0], before[1], before[2].result()
            before = where, windows, scores
        if before is not None:
            yield before[0], before[1], before[2].result()

    def _staged(
        self, batches: Iterator[tuple[Batch, Tensor]]
    ) -> Iterator[tuple[Batch, Tensor, Arriving]]:
        for where, windows in batches:
            yield where, windows, self._accelerator.stage(windows)


def lane_for(accelerator: Accelerator, image: Tensor) -> Lane:
    """The lane for the windows of an image."""
    return Overlapped(accelerator) if accelerator.overlaps(image) else one_by_one
