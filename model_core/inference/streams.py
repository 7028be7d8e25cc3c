"""What a device with queues of its own has to offer: streams, events, copies, recorded graphs.

A *stream* does what it is given in order and answers the caller at once; the caller, the *host*,
goes on meanwhile. Two streams know nothing of each other until one waits for an *event* of the
other. `model_core.inference.transfer` and `model_core.inference.graphs` hold the logic that is
built on that, and know no more of a device than these protocols; `model_core.inference.cuda` is
the real one. A simulated one in the tests carries every piece of work out as late, or as early, as
the waits allow, so that a wait that is missing gives wrong numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Event(Protocol):
    """A mark in a stream; one that was never recorded has happened."""

    def record(self, stream: Stream) -> None:
        """Mark what the stream was given so far."""

    def synchronize(self) -> None:
        """Let the host wait until the stream has come to the mark."""


class Stream(Protocol):
    """A queue of work on the device."""

    def wait_event(self, event: Event) -> None:
        """Do nothing that is given from now on before the event has happened."""

    def synchronize(self) -> None:
        """Let the host wait until everything is done."""


class Graph(Protocol):
    """Work on a device, recorded once, that can be started again as a whole."""

    def replay(self) -> None:
        """Give the work to the computing stream again, on the same memory."""


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Bytes: in use now, at the peak since it was last reset, and held in reserve."""

    used: int
    peak: int
    reserved: int


class DeviceKit(Protocol):
    """The primitives of one device."""

    @property
    def device(self) -> torch.device:
        """Where tensors lie."""

    def computing(self) -> Stream:
        """The stream that networks run on, for the calling thread."""

    def side_stream(self) -> Stream:
        """A new stream beside it."""

    def event(self) -> Event:
        """A new event."""

    def on(self, stream: Stream) -> AbstractContextManager[object]:
        """A context in which copies go to `stream`."""

    def host_buffer(self, numel: int, dtype: torch.dtype) -> Tensor:
        """Page-locked memory of the host, 1-D: only such memory is copied without waiting."""

    def device_buffer(self, numel: int, dtype: torch.dtype) -> Tensor:
        """Memory of the device, 1-D; earlier work of the computing stream may still use it."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copy a tensor to another of its shape, in the stream of the context.

        Between host and device both are contiguous, or the host would have to wait and pack.
        """

    def record(self, function: Callable[[], Tensor]) -> tuple[Graph, Tensor]:
        """Record what `function` gives to the device, without doing it, and its result's place.

        Raises:
            RuntimeError: the function does what cannot be recorded, or there is no memory for it.
        """

    def synchronise(self) -> None:
        """Let the host wait for all streams."""

    def memory(self) -> MemoryUse:
        """What tensors take of the device's memory."""

    def reset_peak(self) -> None:
        """Count the peak anew."""
