"""The stages of a run: how long each took, what the caller is told, and when to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from model_core.inference.sliding_window import raise_if_cancelled
from model_core.types import CancelCheck, Progress


class Stages:
    """A stop-watch that reports.

    Args:
        progress: told ``(stage, done, total)``.
        cancelled: asked before each stage.
    """

    def __init__(self, progress: Progress | None, cancelled: CancelCheck | None) -> None:
        self.progress = progress
        self.cancelled = cancelled
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time a stage that tells its own progress.

        Raises:
            Cancelled: before it begins, when the caller wants to stop.
        """
        raise_if_cancelled(self.cancelled)
        began = perf_counter()
        yield
        self.seconds[stage] = perf_counter() - began

    @contextmanager
    def told(self, stage: str) -> Iterator[None]:
        """Time a stage in one step, and tell its beginning and its end."""
        with self.timed(stage):
            self._tell(stage, 0)
            yield
        self._tell(stage, 1)

    def _tell(self, stage: str, done: int) -> None:
        if self.progress is not None:
            self.progress(stage, done, 1)
