"""What a run says while it runs: a live line on a terminal, plain log lines elsewhere.

Everything said also goes to ``log.txt`` (through logging) and, as numbers, to ``metrics.jsonl``.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

logger = logging.getLogger("training")


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """The numbers of one step."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    elapsed: float
    """Seconds of the whole run so far."""
    progress: float
    """Share of the run that is over, 0 to 1."""

    @property
    def seconds_left(self) -> float:
        """Time that the rest of the run will take at the speed so far."""
        if self.progress <= 0:
            return math.inf
        return self.elapsed * (1 - self.progress) / self.progress


class Reporter:
    """Speaks on `console`; silent when it is ``None``."""

    def __init__(self, console: Console | None = None, *, log_seconds: float = 30.0) -> None:
        self.console = console
        self.log_seconds = log_seconds
        self._bar: Progress | None = None
        self._said = -math.inf
        self._loss: float | None = None
        self._pace: float | None = None

    def start(self, total_steps: int) -> None:
        """Open the live line (terminals only)."""
        if self.console is None or not self.console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"),
            TimeElapsedColumn(), console=self.console,
        )  # fmt: skip
        self._bar.add_task("…", total=total_steps)
        self._bar.start()

    def stop(self) -> None:
        """Close the live line."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def step(self, report: StepReport) -> None:
        """Tell of one step; losses and paces are smoothed over about twenty steps."""
        self._loss = _smooth(self._loss, report.loss)
        self._pace = _smooth(self._pace, report.seconds)
        line = (
            f"loss {self._loss:.4f} · lr {report.learning_rate:.1e} · {self._pace:.2f} s/step · "
            f"{duration(report.seconds_left)} left"
        )
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=report.step, description=line)
        if time.monotonic() - self._said >= self.log_seconds or report.step == 1:
            self._said = time.monotonic()
            self.say(f"step {report.step} · {line}", live=True)

    def say(self, message: str, *, live: bool = False) -> None:
        """One line to the log, and to the console unless the live line shows it already."""
        logger.info(message)
        if self.console is not None and not (live and self._bar is not None):
            self.console.print(message)
            _flush()

    def validation(
        self, step: int, cases: Mapping[str, Mapping[str, float]], mean: Mapping[str, float]
    ) -> None:
        """Dice per case and their mean."""
        rows = [*cases.items(), ("mean", mean)]
        for name, scores in rows:
            words = " · ".join(f"{region} {value:.3f}" for region, value in scores.items())
            logger.info("validation at step %d · %s · %s", step, name, words)
        if self.console is not None:
            self.console.print(_dice_table(f"Dice at step {step}", rows))
            _flush()


def duration(seconds: float) -> str:
    """Readable duration: ``1 h 05 min``, ``12 min``, ``40 s``."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _dice_table(title: str, rows: list[tuple[str, Mapping[str, float]]]) -> Table:
    table = Table("case", *rows[-1][1], title=title)
    for name, scores in rows:
        table.add_row(name, *(f"{value:.3f}" for value in scores.values()))
    return table


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else 0.95 * old + 0.05 * new


def _flush() -> None:
    """A log that is followed through a pipe should not lag by a buffer."""
    sys.stdout.flush()
