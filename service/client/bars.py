"""How jobs look in a terminal while they wait and run."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from model_core.cli import err
from service.client.job import Job

MOST: Final = 12
"""Bars at a time; of a hundred jobs, the later ones have nothing to show yet."""


class JobBars:
    """A bar for each job on stderr: place in the queue, windows done, time left.

    Nothing is drawn where stderr is no terminal. Use it as a context manager.
    """

    def __init__(self, *, total: int) -> None:
        console = err()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[left]}", style="progress.remaining", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._all = self._progress.add_task("studies", total=total, visible=total > 1, left="")
        self._bars: dict[str, TaskID] = {}
        self._total, self._ended, self._began = total, 0, time.monotonic()

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bars."""
        self._progress.stop()

    def show(self, name: str, doing: str, job: Job | None = None) -> None:
        """A study is at a new point."""
        if name not in self._bars:
            if len(self._bars) >= MOST:
                return
            self._bars[name] = self._progress.add_task("", total=1, left="")
        progress = job.progress if job else None
        self._progress.update(
            self._bars[name],
            description=f"{name}: {doing}",
            completed=progress.done if progress else 0,
            total=(progress.total if progress else 0) or 1,
            left=time_left(job.eta_s) if job else "",
        )

    def end(self, name: str) -> None:
        """Nothing more happens to a study."""
        if name in self._bars:
            self._progress.remove_task(self._bars.pop(name))
        self._ended += 1
        per_study = (time.monotonic() - self._began) / self._ended
        left = per_study * (self._total - self._ended)
        self._progress.update(self._all, advance=1, left=time_left(left or None))


def time_left(seconds: float | None) -> str:
    """``about 40 s left``, ``about 3 min left``; empty where nobody knows."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    minutes = round(seconds / 60)
    return f"about {minutes} min left" if minutes < 120 else f"about {minutes / 60:.0f} h left"
