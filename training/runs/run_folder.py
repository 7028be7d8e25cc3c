"""Where a run keeps what it makes: ``RESULTS/NAME/``, made once and never overwritten.

::

    config.json · split.json · environment.json · report.html
    checkpoints/{last,best}.pt
    logs/log.txt · logs/metrics.jsonl · logs/tensorboard/
    plots/training_curves.png · plots/val_predictions_epoch_*.png
    metrics/final_metrics.json · predictions/ · cache/

A run that was begun by an earlier release has ``log.txt`` and ``metrics.jsonl`` at its top; they
are read, and continued, where they are.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model_core.errors import OptionError
from model_core.imaging.atomic import write_atomically
from training.runs.board import Board
from training.runs.environment import describe_environment
from training.runs.lock import held, is_held
from training.runs.records import (
    append_record,
    keep_records_until,
    mend_records,
    read_records,
)

_STEP_OF_PICTURE = re.compile(r"_step_(\d+)\.png$")


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.split = path / "split.json"
        self.environment = path / "environment.json"
        self.report = path / "report.html"
        self.logs = path / "logs"
        self.log = self._placed("log.txt")
        self.metrics = self._placed("metrics.jsonl")
        self.tensorboard = self.logs / "tensorboard"
        self.lock = self.logs / "run.lock"
        self.checkpoints = path / "checkpoints"
        self.last = self.checkpoints / "last.pt"
        self.best = self.checkpoints / "best.pt"
        self.plots = path / "plots"
        self.curves = self.plots / "training_curves.png"
        self.final_metrics = path / "metrics" / "final_metrics.json"
        self.predictions = path / "predictions"
        self.cache = path / "cache"
        self._board = Board(self.tensorboard)
        self._mended = False
        self._working = False

    @classmethod
    def create(cls, results: Path, name: str) -> RunFolder:
        """A new run; a name that is taken raises `OptionError`."""
        folder = cls(results / name)
        if folder.config.exists():
            raise OptionError(
                "name",
                expected="a name no other run has",
                got=repr(name),
                way_out="Choose another --name, or continue that run with --resume.",
            )
        for inner in ("checkpoints", "logs", "plots", "metrics", "cache"):
            (folder.path / inner).mkdir(parents=True, exist_ok=True)
        return folder

    @classmethod
    def existing(cls, results: Path, name: str) -> RunFolder:
        """A run that was started before; an unknown name raises `OptionError`."""
        folder = cls(results / name)
        if not folder.config.exists():
            raise OptionError(
                "name",
                expected="the name of a run in the results folder",
                got=repr(name),
                way_out="Check --out and --name, or start it without --resume.",
            )
        return folder

    @contextmanager
    def at_work(self, notice: Callable[[str], None] | None = None) -> Iterator[None]:
        """Keep other processes off the run and note its environment.

        Within, the curves are drawn anew at every evaluation; at the end what is open is closed.

        Args:
            notice: told in words what the user may want to know, such as how to get TensorBoard.

        Raises:
            NotNowError: another process works on this run.
        """
        if notice is not None:
            self._board.notice = notice
        with held(self.lock):
            self.note_environment()
            self._working = True
            try:
                yield
            finally:
                self._working = False
                self.close()
                self._draw_curves()

    def is_at_work(self) -> bool | None:
        """Whether a process works on the run; ``None`` where that cannot be known."""
        return is_held(self.lock)

    def note_environment(self) -> None:
        """Write ``environment.json``; other environments of earlier parts are kept in it."""
        now, before = describe_environment(), read_json(self.environment) or {}
        earlier = [*before.pop("earlier", [])]
        if before and _lasting(before) != _lasting(now):
            earlier.append(before)
        write_json(self.environment, {**now, "earlier": earlier} if earlier else now)

    def record(self, kind: str, **values: Any) -> None:
        """Append one line to ``metrics.jsonl`` and show it in TensorBoard.

        Kinds: ``step``, ``validation`` (``cases``, ``mean``, ``score``), ``epoch``
        (``pseudo_dice``, ``ema_pseudo_dice``), ``end``. Numbers that are not finite are null.
        """
        if not self._mended:
            self.metrics.parent.mkdir(parents=True, exist_ok=True)
            mend_records(self.metrics)
        self._mended = False  # until this line is whole
        append_record(self.metrics, {"kind": kind, **values})
        self._mended = True
        self._board.add(kind, values)
        if kind == "validation" and self._working:
            self._draw_curves()

    def records(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind, in order; a torn line is left out."""
        return [line for line in read_records(self.metrics) if line.get("kind") == kind]

    def forget_after(self, step: int) -> None:
        """Drop records, curves and pictures of steps that a resumed run will do again."""
        keep_records_until(self.metrics, step)
        self._board.forget_after(step)
        for picture in self.validation_pictures():
            match = _STEP_OF_PICTURE.search(picture.name)
            if match and int(match[1]) > step:
                picture.unlink(missing_ok=True)

    def reopen(self) -> None:
        """Drop the record that the run has ended: it goes on."""
        keep_records_until(self.metrics, math.inf)

    def validation_pictures(self) -> list[Path]:
        """The pictures of the evaluations, in order."""
        return sorted(self.plots.glob("val_predictions_epoch_*.png"))

    def close(self) -> None:
        """Write out what TensorBoard still holds back; recording may go on afterwards."""
        self._board.close()

    def log_handler(self) -> logging.Handler:
        """A handler that appends to ``log.txt`` with times in UTC."""
        import time

        self.log.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(self.log, encoding="utf-8")
        formatter = logging.Formatter("%(asctime)sZ %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        return handler

    def _draw_curves(self) -> None:
        from training.runs.plots import draw_curves

        try:
            draw_curves(self)
        except Exception as error:  # noqa: BLE001 - hours of training outweigh a picture
            self._board.notice(f"the training curves could not be drawn: {error}")

    def _placed(self, name: str) -> Path:
        earlier = self.path / name
        return earlier if earlier.is_file() else self.path / "logs" / name


def write_json(path: Path, values: object) -> None:
    """Write `values` readably, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(values, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`; ``None`` if there is none, or no whole one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _lasting(environment: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in environment.items() if name != "written"}
