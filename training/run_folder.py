"""Where a run keeps what it makes: ``RESULTS/NAME/``, made once and never overwritten.

::

    config.json · split.json · log.txt · metrics.jsonl
    checkpoints/{last,best}.pt · plots/training_curves.png · metrics/final_metrics.json · cache/
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from model_core.errors import OptionError


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.split = path / "split.json"
        self.log = path / "log.txt"
        self.metrics = path / "metrics.jsonl"
        self.last = path / "checkpoints" / "last.pt"
        self.best = path / "checkpoints" / "best.pt"
        self.curves = path / "plots" / "training_curves.png"
        self.final_metrics = path / "metrics" / "final_metrics.json"
        self.cache = path / "cache"

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
        for inner in ("checkpoints", "plots", "metrics", "cache"):
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

    def record(self, kind: str, **values: Any) -> None:
        """Append one line to ``metrics.jsonl``."""
        with self.metrics.open("a") as file:
            file.write(json.dumps({"kind": kind, **values}) + "\n")

    def records(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind, in order."""
        if not self.metrics.exists():
            return []
        lines = (json.loads(line) for line in self.metrics.read_text().splitlines())
        return [line for line in lines if line["kind"] == kind]

    def forget_after(self, step: int) -> None:
        """Drop the records of steps that a resumed run will do again."""
        if not self.metrics.exists():
            return
        lines = self.metrics.read_text().splitlines()
        kept = [line for line in lines if json.loads(line).get("step", 0) <= step]
        self.metrics.write_text("".join(f"{line}\n" for line in kept))

    def log_handler(self) -> logging.Handler:
        """A handler that appends to ``log.txt`` with times in UTC."""
        import time

        handler = logging.FileHandler(self.log)
        formatter = logging.Formatter("%(asctime)sZ %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        return handler


def write_json(path: Path, values: object) -> None:
    """Write `values` readably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n")
