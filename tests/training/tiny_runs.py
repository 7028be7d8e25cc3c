"""Whole runs of a few steps: settings that make every recipe tiny, and ways to start them."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from training.loop.options import RunOptions
from training.loop.trainer import Trainer
from training.request import RunRequest

QUICK: Mapping[str, Any] = {"batch": 1, "overlap": 0, "validation_overlap": 0, "steps": 2}
SEGMAMBA: Mapping[str, Any] = {
    **QUICK,
    "network_args": {"depths": [1, 0, 0, 0], "features": [4, 4, 4, 4], "hidden": 4},
    "patch": [32, 32, 32],
}
"""For ``small-segmamba``."""
LIGHTM: Mapping[str, Any] = {
    **QUICK,
    "network_args": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
}
"""For ``lightm-unet-3d`` and ``-2d``, with a patch beside it."""


def ask(data: Path, results: Path, name: str = "run", **more: Any) -> RunRequest:
    """A request for the CPU, without worker processes."""
    return RunRequest(data=data, results=results, name=name, options=RunOptions(workers=0), **more)


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the user press Ctrl-C while this step of the next run is computed."""
    real = Trainer.step

    def interrupted(self: Trainer, *arguments: Any) -> Any:
        if self.state.step + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *arguments)

    monkeypatch.setattr(Trainer, "step", interrupted)


def one_thread() -> None:
    """Tiny networks are slower on several threads."""
    torch.set_num_threads(1)
