"""PyTorch's CUDA streams, events and graphs, as `model_core.inference.streams` names them.

Nothing is decided here. No test of this project has run this file on a GPU; `segmamba bench gpu`
does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from model_core.inference.streams import Event, Graph, MemoryUse, Stream


class CudaKit:
    """The primitives of one CUDA device.

    Args:
        device: ``cuda`` or ``cuda:N``.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @property
    def device(self) -> torch.device:
        """Where tensors lie."""
        return self._device

    def computing(self) -> Stream:
        """The calling thread's current stream."""
        return cast("Stream", torch.cuda.current_stream(self._device))

    def side_stream(self) -> Stream:
        """A new stream."""
        return cast("Stream", torch.cuda.Stream(self._device))  # type: ignore[no-untyped-call]  # torch's own

    def event(self) -> Event:
        """A new event, without a clock."""
        return cast("Event", torch.cuda.Event())  # type: ignore[no-untyped-call]  # torch's own

    def on(self, stream: Stream) -> AbstractContextManager[object]:
        """A context in which `stream` is the current one."""
        return torch.cuda.stream(cast("torch.cuda.Stream", stream))

    def host_buffer(self, numel: int, dtype: torch.dtype) -> Tensor:
        """Page-locked memory."""
        return torch.empty(numel, dtype=dtype, pin_memory=True)

    def device_buffer(self, numel: int, dtype: torch.dtype) -> Tensor:
        """Memory of the device, from PyTorch's allocator."""
        return torch.empty(numel, dtype=dtype, device=self._device)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copy without waiting, in the current stream."""
        target.copy_(source, non_blocking=True)

    def record(self, function: Callable[[], Tensor]) -> tuple[Graph, Tensor]:
        """Capture a CUDA graph, with memory of its own, and its output's place.

        Only this thread is kept from what cannot be captured: others may load a model meanwhile.
        The stream that was current is so again afterwards, where the capture failed too.
        """
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self._device),
            torch.cuda.stream(torch.cuda.current_stream(self._device)),
            torch.cuda.graph(graph, stream=self._capture_stream, capture_error_mode="thread_local"),
        ):
            result = function()
        return cast("Graph", graph), result

    @cached_property
    def _capture_stream(self) -> torch.cuda.Stream:
        """The device's own: PyTorch's default one lies on whichever device captured first."""
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # torch's own

    def synchronise(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize(self._device)

    def memory(self) -> MemoryUse:
        """What PyTorch's allocator counts; asking waits for nothing."""
        return MemoryUse(
            used=torch.cuda.memory_allocated(self._device),
            peak=torch.cuda.max_memory_allocated(self._device),
            reserved=torch.cuda.memory_reserved(self._device),
        )

    def reset_peak(self) -> None:
        """Count the peak from now on."""
        torch.cuda.reset_peak_memory_stats(self._device)
