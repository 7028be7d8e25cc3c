"""Checkpoints of a run: plain tensors and primitive values, written whole or not at all."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from model_core.errors import CheckpointError

FORMAT = 1
"""Version of the layout; raised when an older reader could not understand a newer file."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path` atomically: a reader sees the old file or the new one."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save({"format": FORMAT, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint, on the CPU; never runs code from the file.

    Raises:
        CheckpointError: no checkpoint, damaged, or written by an unknown version.
    """
    if not path.is_file():
        raise CheckpointError(f"The run has no {path.name}; it stopped before its first save.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path.name} is damaged and cannot be read.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path.name} is not a checkpoint of format {FORMAT}.")
    return content


def rng_state() -> dict[str, Any]:
    """State of torch's random generators (the sampler needs none: it is a function of the step)."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_rng_state(state: dict[str, Any]) -> None:
    """Undo what happened to torch's generators since `rng_state`."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
