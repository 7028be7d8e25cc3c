"""A run's numbers in TensorBoard, where that is installed; a run never depends on it.

Tags: ``train/…`` per recorded step, ``validation/…`` per evaluation (mean over cases),
``pseudo_dice/…`` per epoch. Cases are left to ``metrics.jsonl``: hundreds would be no board.
"""

from __future__ import annotations

import logging
import math
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger("training")

ABSENT = "TensorBoard is not installed, so there is no logs/tensorboard: pip install tensorboard"
FLUSH_SECONDS = 10
_STEP_TAGS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "gradient_norm": "train/gradient_norm",
    "seconds": "train/step_seconds",
}


class Board:
    """Writes to `folder`; the first number opens it, and leaving the object closes it.

    Args:
        folder: where the event files go.
        notice: told once, in words, if TensorBoard is not installed.
    """

    def __init__(self, folder: Path, notice: Callable[[str], None] = logger.warning) -> None:
        self.folder = folder
        self.notice = notice
        self._writer: SummaryWriter | None = None
        self._absent = False
        self._purge_step: int | None = None
        self._step = 0

    def add(self, kind: str, values: Mapping[str, Any]) -> None:
        """Show the numbers of one record; a record without a step counts at the last one."""
        self._step = int(values.get("step") or self._step)
        numbers = [(tag, value) for tag, value in _scalars(kind, values) if _is_number(value)]
        if not numbers or self._absent:
            return
        writer = self._open()
        if writer is None:
            return
        for tag, value in numbers:
            writer.add_scalar(tag, float(value), self._step)

    def forget_after(self, step: int) -> None:
        """Let TensorBoard drop what it has of later steps: the run does them again."""
        self.close()
        self._purge_step, self._step = step + 1, step

    def close(self) -> None:
        """Write out what waits; the next number opens a new file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> SummaryWriter | None:
        if self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._absent = True
                self.notice(ABSENT)
                return None
            purge = self._purge_step if self.folder.exists() else None
            self._writer = SummaryWriter(
                str(self.folder), purge_step=purge, flush_secs=FLUSH_SECONDS
            )
            self._purge_step = None
            weakref.finalize(self, _close_in, os.getpid(), self._writer)
        return self._writer


def _close_in(process: int, writer: SummaryWriter) -> None:
    """Close at the end of the process that opened it; a forked one has no thread to do it."""
    if os.getpid() == process:
        writer.close()


def _scalars(kind: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Tag and value of what is worth a curve."""
    if kind == "step":
        for name, tag in _STEP_TAGS.items():
            yield tag, values.get(name)
    elif kind == "validation":
        for region, dice in (values.get("mean") or {}).items():
            yield f"validation/dice_{region}", dice
        yield "validation/mean_dice", values.get("score")
        yield "validation/seconds", values.get("seconds")
    elif kind == "epoch":
        yield from _by_class("pseudo_dice/class", values.get("pseudo_dice"))
        yield "pseudo_dice/mean", values.get("mean")
        yield "pseudo_dice/ema", values.get("ema_pseudo_dice", values.get("average"))
        yield "train/epoch_loss", values.get("train_loss")


def _by_class(tag: str, value: Any) -> Iterator[tuple[str, Any]]:
    """One number, one per class by name, or one per class in order."""
    if isinstance(value, Mapping):
        yield from ((f"{tag}_{name}", inner) for name, inner in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"{tag}_{number}", inner) for number, inner in enumerate(value, start=1))
    else:
        yield tag, value


def _is_number(value: Any) -> bool:
    try:
        return value is not None and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
