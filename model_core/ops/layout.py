"""How tensors meet the C++ kernels: as rows of channels, copied only where they do not lie so.

The kernels read token-major float32 memory: (B, L, D) with contiguous channels, any row stride.
The (B, D, L) views of a network in channels-last memory are exactly that under a transpose; tensors
with contiguous tokens, as other Mamba code makes them, are transposed here on their way in and out.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, Final

import torch

from model_core.errors import BackendError, KernelMemoryError
from model_core.ops.native_library import native_library, native_problem

_FEW: Final = 2**13
"""Values that PyTorch transposes in less time than it takes to call a kernel."""


class View(ctypes.Structure):
    """Mirror of ``View`` in the kernels: a (B, L, D) tensor with contiguous channels."""

    _fields_ = (("data", ctypes.c_void_p), ("batch", ctypes.c_int64), ("row", ctypes.c_int64))


class _TransposeArguments(ctypes.Structure):
    """Mirror of ``TransposeArguments`` in transpose.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "rows", "columns")),
        *(("source", ctypes.c_void_p), ("source_batch", ctypes.c_int64)),
        *(("source_row", ctypes.c_int64), ("target", ctypes.c_void_p)),
        *((name, ctypes.c_int64) for name in ("target_batch", "target_row", "threads")),
    )


def kernels() -> ctypes.CDLL:
    """The loaded library; `BackendError` with the reason where there is none."""
    library = native_library()
    if library is None:
        raise BackendError(f"The native kernels are {native_problem()}. Use backend='torch'.")
    return library


def call(function: str, arguments: ctypes.Structure) -> None:
    """Call a kernel.

    Raises:
        KernelMemoryError: it found no memory for its scratch space.
    """
    status = getattr(kernels(), function)(ctypes.byref(arguments))
    if status == 2:
        raise KernelMemoryError(
            f"{function}: out of memory. Use a smaller window, or fewer threads "
            f"(torch.set_num_threads), each of which has scratch space of its own."
        )
    assert status == 0, f"{function} refused arguments that were checked before"


def view(x: torch.Tensor | None) -> View:
    """Describe rows to a kernel; a null pointer for None."""
    return View() if x is None else View(x.data_ptr(), x.stride(0), x.stride(1))


def pointer(x: torch.Tensor | None) -> int | None:
    """The address of a dense tensor, or null."""
    return None if x is None else x.data_ptr()


class Scratch:
    """Memory for transposed copies, by name, used again by the next part of the same call.

    Freed and asked for anew it would be handed over page by page, zeroed, each time.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, name: str, shape: torch.Size | tuple[int, ...]) -> torch.Tensor:
        """Unwritten float32 memory of this shape; what was taken by this name before is lost."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(size, dtype=torch.float32)
        return self._buffers[name][:size].view(shape)


def rows(x: torch.Tensor, scratch: Scratch | None = None, name: str = "") -> torch.Tensor:
    """(B, D, L) of any layout and dtype → float32 (B, L, D) with contiguous channels.

    Not copied where it lies so already; a copy lies in ``scratch`` under ``name``, if given.
    """
    x = x.float().transpose(1, 2)
    if x.stride(2) == 1 or x.shape[2] == 1:
        return x
    if x.stride(1) != 1:
        return x.contiguous()
    copy = (scratch or Scratch()).take(name, x.shape)
    transpose(x.transpose(1, 2), copy)
    return copy


def dense(x: torch.Tensor | None) -> Any:
    """Float32 and contiguous, for parameters; None stays None."""
    return None if x is None else x.float().contiguous()


def tokens_first(x: torch.Tensor) -> bool:
    """Whether a (B, D, L) tensor has its channels side by side, as the kernels want them."""
    return x.stride(1) == 1 or x.shape[1] == 1


def empty_as(x: torch.Tensor) -> torch.Tensor:
    """A float32 result shaped like ``x`` (B, D, L), tokens first exactly where ``x`` is."""
    batch, channels, length = x.shape
    if tokens_first(x):
        return x.new_empty(batch, length, channels, dtype=torch.float32).transpose(1, 2)
    return x.new_empty(x.shape, dtype=torch.float32)


def target_rows(out: torch.Tensor, scratch: Scratch | None = None, name: str = "") -> torch.Tensor:
    """Where a kernel may write the rows of ``out`` (B, D, L): in place, or scratch to `settle`."""
    if tokens_first(out):
        return out.transpose(1, 2)
    return (scratch or Scratch()).take(name, out.transpose(1, 2).shape)


def settle(written: torch.Tensor, out: torch.Tensor) -> None:
    """Bring what a kernel wrote to `target_rows` to its place in ``out``."""
    if not tokens_first(out):
        transpose(written, out)


def transpose(source: torch.Tensor, target: torch.Tensor) -> None:
    """target[b, c, r] = source[b, r, c] in float32; the last axis of both must be contiguous."""
    batch, height, width = source.shape
    if source.numel() < _FEW:
        target.copy_(source.transpose(1, 2))
        return
    arguments = _TransposeArguments(batch=batch, rows=height, columns=width)
    arguments.source, arguments.source_batch = source.data_ptr(), source.stride(0)
    arguments.source_row, arguments.target = source.stride(1), target.data_ptr()
    arguments.target_batch, arguments.target_row = target.stride(0), target.stride(1)
    arguments.threads = torch.get_num_threads()
    call("segmamba_transpose", arguments)


def refuse_second_derivative(*_: Any) -> Any:
    """Stands as the gradient of the operators that compute gradients."""
    raise BackendError(
        "The native kernels have no second derivative. Use backend='reference', which has all."
    )
