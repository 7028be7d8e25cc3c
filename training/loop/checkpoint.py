"""Checkpoints of a run: plain tensors and primitive values, written whole or not at all.

``last.pt`` is everything that a resumed run needs, ``last.previous.pt`` the one before it,
``step_N.pt`` copies that were asked for, ``best.pt`` the weights that judged best. A writer that is
killed leaves a ``.partial`` file and both checkpoints as they were.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_core.errors import CheckpointError
from training.runs.run_folder import RunFolder

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the layout; raised when an older reader could not understand a newer file."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path` atomically: a reader sees the old file or the new one."""
    with _written_beside(path, content) as partial:
        partial.replace(path)


def save_last(path: Path, content: dict[str, Any], *, copies: tuple[Path, ...] = ()) -> None:
    """Write `content` to `path` atomically; what was there becomes `previous_path`.

    Args:
        path: ``last.pt``.
        content: the run's full state.
        copies: further names for the same file (``step_N.pt``).
    """
    with _written_beside(path, content) as partial:
        if path.exists():
            _link(path, previous_path(path))
        partial.replace(path)
    for copy in copies:
        _link(path, copy)


def previous_path(path: Path) -> Path:
    """Where the checkpoint before ``last.pt`` is kept."""
    return path.with_suffix(".previous.pt")


def step_path(path: Path, step: int) -> Path:
    """Name of the checkpoint of a step, beside ``last.pt``."""
    return path.with_name(f"step_{step}.pt")


def clean_partials(folder: Path) -> None:
    """Remove what a killed writer left; to be called while nobody writes."""
    for partial in folder.glob("*.partial"):
        partial.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint, on the CPU; never runs code from the file.

    Raises:
        CheckpointError: no checkpoint, damaged, or written by an unknown version.
    """
    if not path.is_file():
        raise CheckpointError(f"The run has no {path.name}; it stopped before its first save.")
    try:
        _check_whole(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage has many faces: whatever a parser stumbles on
        raise CheckpointError(f"{path.name} is damaged and cannot be read.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path.name} is not a checkpoint of format {FORMAT}.")
    return content


def load_last(path: Path) -> tuple[dict[str, Any], Path]:
    """The newest whole state of a run and the file it came from.

    A damaged ``last.pt`` is put aside as ``last.damaged.pt`` (the next save must not push it over
    the good one before it) and the previous one is taken, with a warning in the log.

    Raises:
        CheckpointError: neither can be read.
    """
    previous = previous_path(path)
    try:
        return load_checkpoint(path), path
    except CheckpointError as error:
        if not previous.is_file():
            raise
        content = load_checkpoint(previous)
        if path.exists():
            path.replace(path.with_suffix(".damaged.pt"))
        logger.warning("%s Continuing from %s, step %s.", error, previous.name, content["step"])
        return content, previous


def best_weights(folder: RunFolder) -> dict[str, Any]:
    """Content of ``best.pt``; before the first validation, the last average in the same form.

    Raises:
        CheckpointError: the run has saved nothing yet.
    """
    if folder.best.is_file():
        return load_checkpoint(folder.best)
    content, _ = load_last(folder.last)
    weights = {name: value for name, value in content["ema"].items() if name != "updates"}
    kept = {name: content[name] for name in ("config", "step", "elapsed")}
    return {**kept, "weights": weights}


def rng_state() -> dict[str, Any]:
    """State of the random generators (the sampler needs none: it is a function of the step)."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    name, keys, *rest = np.random.get_state()
    return {
        "cpu": torch.get_rng_state(),
        "cuda": cuda,
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Undo what happened to the generators since `rng_state`."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    if "python" in state:  # absent from runs that began before it was kept
        random.setstate(state["python"])
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))


@contextlib.contextmanager
def _written_beside(path: Path, content: dict[str, Any]) -> Iterator[Path]:
    """A whole, durable file beside `path`, for the caller to give its name."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _check_whole(path: Path) -> None:
    """Refuse changed bytes by the checksums of the zip archive, which torch writes, not reads."""
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile


def _link(source: Path, target: Path) -> None:
    """Give a file a second name in one step; where links are unknown, copy it."""
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)


def _sync_folder(folder: Path) -> None:
    """Make new names durable, where the file system lets us."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
