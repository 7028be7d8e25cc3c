"""Out of memory: which setting to change, in the order in which it costs least."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from model_core.errors import KernelMemoryError, MemoryLimitError
from model_core.inference import retry
from model_core.types import Shape3
from training.config import TrainConfig

_WORDS: Final = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
)
"""What an error of any class may say besides what `retry` knows, in lower case: PyTorch, NumPy, the
operating system, and workers that repeat their words."""
_STEP: Final = 16
"""Sides of a smaller patch are multiples of this, which every network takes."""


@contextmanager
def memory_explained(config: TrainConfig, device: torch.device | str) -> Iterator[None]:
    """Turn running out of memory into an error that names what to change.

    Raises:
        MemoryLimitError: instead of whatever the library raised.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError, KernelMemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(config, device) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the host."""
    if retry.is_out_of_memory(error) or isinstance(error, KernelMemoryError):
        return True
    return any(words in str(error).lower() for words in _WORDS)


def out_of_memory(config: TrainConfig, device: torch.device | str) -> MemoryLimitError:
    """The error for a run of `config`; its ``argument`` is the first setting to change."""
    settings = lighter_settings(config, device)
    first = next(iter(settings), "device")
    tries = " ".join(
        f"({number}) {advice}" for number, advice in enumerate(settings.values(), start=1)
    )
    return MemoryLimitError(
        first,
        expected=f"a step that fits into the memory of {device}",
        got=f"out of memory with batch {config.batch}, patch {_shown(config.patch)}",
        way_out=f"Try, in this order: {tries} Checkpoints are kept: continue with --resume."
        if tries
        else "Nothing is left to make smaller but the network; use a device with more memory.",
    )


def lighter_settings(config: TrainConfig, device: torch.device | str) -> dict[str, str]:
    """Setting → advice, in the order in which they should be tried; what is done is left out."""
    advice: dict[str, str] = {}
    if config.batch > 1:
        advice["batch"] = (
            f"--set batch=1 --set accumulate={config.accumulate * config.batch} "
            "(as many patches a step, one at a time)."
        )
    smaller = smaller_patch(config.patch)
    if smaller != config.patch:
        advice["patch"] = f"--set patch={list(smaller)} (the network sees less around a voxel)."
    if not config.checkpoint_activations:
        advice["checkpoint_activations"] = (
            "--set checkpoint_activations=true (the same result, about a third slower)."
        )
    if config.precision == "float32":
        half = "bfloat16" if torch.device(device).type == "cpu" else "bfloat16 (or float16)"
        advice["precision"] = f"--set precision={half}."
    return advice


def smaller_patch(patch: Shape3) -> Shape3:
    """`patch` with its longest sides three quarters as long, in multiples of 16."""
    longest = max(patch)
    if longest < 2 * _STEP:
        return patch
    shorter = max(_STEP, longest * 3 // 4 // _STEP * _STEP)
    x, y, z = (shorter if side == longest else side for side in patch)
    return x, y, z


def _shown(shape: Shape3) -> str:
    return "×".join(map(str, shape))
