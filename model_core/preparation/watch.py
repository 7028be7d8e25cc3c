"""Who is told how a preparation goes on, and who may stop it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from model_core.errors import Cancelled
from model_core.types import CancelCheck, Progress

POLL_SECONDS: Final = 0.1
"""How often a caller who may want to stop is asked while something else computes."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The caller's two functions; both are called from the caller's own thread only.

    Attributes:
        progress: told ``(stage, done, total)``.
        cancelled: asked at least every `POLL_SECONDS` while something runs.
    """

    progress: Progress | None = None
    cancelled: CancelCheck | None = None

    def tell(self, stage: str, done: int, total: int = 1) -> None:
        """Say how far a stage is."""
        if self.progress is not None:
            self.progress(stage, done, total)

    def stop_if_asked(self) -> None:
        """Ask whether to go on.

        Raises:
            Cancelled: the caller wants to stop.
        """
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("the preparation was stopped")


class Clock:
    """Seconds that a block took, once it has ended."""

    seconds: float = 0.0


@contextmanager
def timed() -> Iterator[Clock]:
    """Time a block."""
    clock, began = Clock(), perf_counter()
    yield clock
    clock.seconds = perf_counter() - began
