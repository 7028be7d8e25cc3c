"""Windows to a device and scores back while it computes: two places for each, taken in turn.

The host packs window i+1 and takes in the scores of window i-1 while the device computes window i.
Three streams are at work: copies in, the computing one, copies out. Each place is used again only
when whoever read it last has done so:

=============== ==================== =====================================================
memory          is written by        may be written again when
=============== ==================== =====================================================
host, windows   the host             the copy to the device has been made
device, windows the copies in        the network has read it
host, scores    the copies out       the host has added it up: the caller comes back for more
=============== ==================== =====================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Final

import torch
from torch import Tensor

from model_core.inference.streams import DeviceKit, Event, Stream

PLACES: Final = 2


class Inbound:
    """Copies windows to the device, in a stream of its own.

    Args:
        kit: the device.
    """

    def __init__(self, kit: DeviceKit) -> None:
        self._kit = kit
        self._stream = kit.side_stream()
        self._places = tuple(_PlaceIn(kit, self._stream) for _ in range(PLACES))
        self._next = 0

    def stage(self, windows: Tensor) -> Staged:
        """Begin to copy (N, C, *window), which may be a view of any strides, from the host."""
        place = self._places[self._next]
        self._next = (self._next + 1) % PLACES
        return place.take(windows)

    def settle(self) -> None:
        """Wait until nothing writes to the device's memory any more."""
        self._stream.synchronize()


class Staged:
    """Windows on their way to the device."""

    def __init__(self, place: _PlaceIn, windows: Tensor) -> None:
        self._place, self._windows = place, windows

    def arrived(self) -> Tensor:
        """The windows on the device; what the computing stream is given from now on may read."""
        self._place.computing().wait_event(self._place.copied)
        return self._windows

    def consumed(self) -> None:
        """The computing stream was given everything that reads the windows."""
        self._place.consumed.record(self._place.computing())


class _PlaceIn:
    """Memory for one batch, on the host and on the device, and who is done with it."""

    def __init__(self, kit: DeviceKit, stream: Stream) -> None:
        self._kit, self._stream = kit, stream
        self.copied, self.consumed = kit.event(), kit.event()
        self._host = self._there = torch.empty(0)

    def computing(self) -> Stream:
        return self._kit.computing()

    def take(self, windows: Tensor) -> Staged:
        self.copied.synchronize()  # the host's memory is read until then
        self._fit(windows)
        packed, there = _front(self._host, windows.shape), _front(self._there, windows.shape)
        packed.copy_(windows)
        self._stream.wait_event(self.consumed)
        with self._kit.on(self._stream):
            self._kit.copy(there, packed)
        self.copied.record(self._stream)
        return Staged(self, there)

    def _fit(self, windows: Tensor) -> None:
        if self._host.dtype == windows.dtype and self._host.numel() >= windows.numel():
            return
        self.computing().synchronize()  # the old memory may still be read
        self._host = self._kit.host_buffer(windows.numel(), windows.dtype)
        self._there = self._kit.device_buffer(windows.numel(), windows.dtype)
        # The allocator may hand out what the computing stream has not left yet.
        self.consumed.record(self.computing())


class Outbound:
    """Copies scores to the host, in a stream of its own.

    Args:
        kit: the device.
    """

    def __init__(self, kit: DeviceKit) -> None:
        self._kit = kit
        self._stream = kit.side_stream()
        self._places = [torch.empty(0) for _ in range(PLACES)]
        self._next = 0

    def fetch(self, scores: Tensor) -> Fetched:
        """Begin to copy what the computing stream was given to compute.

        The place is that of the fetch before the last: its scores must have been taken in.
        """
        scores = scores.contiguous()  # in the computing stream; a copy packs nothing
        here = _front(self._fitting(scores), scores.shape)
        computed, copied = self._kit.event(), self._kit.event()
        computed.record(self._kit.computing())
        self._stream.wait_event(computed)
        with self._kit.on(self._stream):
            self._kit.copy(here, scores)
        copied.record(self._stream)
        return Fetched(here, scores, copied)

    def settle(self) -> None:
        """Wait until nothing reads the device's memory any more."""
        self._stream.synchronize()

    def _fitting(self, scores: Tensor) -> Tensor:
        index, self._next = self._next, (self._next + 1) % PLACES
        held = self._places[index]
        if held.dtype != scores.dtype or held.numel() < scores.numel():
            held = self._places[index] = self._kit.host_buffer(scores.numel(), scores.dtype)
        return held


class Fetched:
    """Scores on their way to the host. Holds the device's until they have arrived."""

    def __init__(self, here: Tensor, scores: Tensor, copied: Event) -> None:
        self._here, self._copied = here, copied
        self._scores: Tensor | None = scores

    def result(self) -> Tensor:
        """The scores on the host; overwritten by the fetch after the next one."""
        self._copied.synchronize()
        self._scores = None
        return self._here


def _front(flat: Tensor, shape: Iterable[int]) -> Tensor:
    sizes = tuple(shape)
    return flat[: prod(sizes)].view(sizes)
