"""Try again with less when memory has run out, and keep nothing of what failed.

What is out of memory is told by the exceptions that say so, by class or in words, not by every
`RuntimeError`: an error that is none of these must not be tried again.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from typing import Final, TypeVar

import torch

_T = TypeVar("_T")
_S = TypeVar("_S")

_WORDS: Final = (
    "DefaultCPUAllocator",
    "not enough memory: you tried to allocate",
    "out of memory",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
)
"""What a `RuntimeError` without a class of its own says: PyTorch's allocator for the CPU the first
two; CUDA, Triton, cuBLAS and cuDNN, which take memory beside PyTorch's allocator, the others."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there was no memory left, on a device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def nothing_to_spare() -> bool:
    """For `climb`, where nothing is held for speed only."""
    return False


def climb(
    attempt: Callable[[_S], _T],
    first: _S,
    following: Callable[[_S], _S],
    device: torch.device,
    spare: Callable[[], bool] = nothing_to_spare,
) -> tuple[_T, _S]:
    """Attempt with one setting after another, until one does not run out of memory.

    Before each further attempt, and before `following` is asked, the tensors of the last one are
    gone, and on a CUDA device the memory that PyTorch keeps of them is given back. What is held for
    speed only goes first: where there was some, the same setting is attempted again.

    Args:
        attempt: what may run out of memory.
        first: its setting.
        following: the setting after one that failed; raises where there is none left.
        device: what the attempts compute on.
        spare: gives back what is held for speed only; whether there was any.

    Returns:
        What an attempt gave, and its setting.
    """
    setting = first
    while True:
        try:
            return attempt(setting), setting
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
        # Outside of the block, or the error would hold the attempt's frames, and they its tensors.
        given_back = spare()
        free_memory(device)
        if not given_back:
            setting = following(setting)


def free_memory(device: torch.device) -> None:
    """Collect what only cycles hold, and give a CUDA device's unused memory back."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
