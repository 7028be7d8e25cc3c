"""What a network runs on: one interface, an implementation for any device, and one for CUDA.

A walk over windows asks its accelerator for five things: to bring windows to the device, to run
the network, to bring scores back, to give memory back, and to say how much is used. On a CPU, and
on any device without streams, all of them are what PyTorch does by itself. On CUDA copies overlap
with the computation (`model_core.inference.transfer`) and forward passes are recorded and replayed
(`model_core.inference.graphs`).
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Protocol

import psutil
import torch
from torch import Tensor, nn

from model_core.errors import OptionError
from model_core.inference.cuda import CudaKit
from model_core.inference.graphs import Replayer, forget_all
from model_core.inference.streams import DeviceKit, MemoryUse
from model_core.inference.transfer import Inbound, Outbound

GRAPHS_VARIABLE: Final = "SEGMAMBA_CUDA_GRAPHS"
"""``1`` (the default) records forward passes on CUDA, ``0`` does not."""

_RAN_OUT: Final = "memory ran out"

Arithmetic = Callable[[], AbstractContextManager[object]]
"""Makes the context of one forward pass: in which precision the network computes."""


class Arriving(Protocol):
    """Windows on their way to the device."""

    def arrived(self) -> Tensor:
        """The windows on the device, for what is computed from now on."""

    def consumed(self) -> None:
        """Everything that reads them was started; their memory may be used again after it."""


class Returning(Protocol):
    """Scores on their way to the host."""

    def result(self) -> Tensor:
        """The scores on the host; overwritten by the fetch after the next one."""


class Accelerator(Protocol):
    """A device that networks run on."""

    @property
    def device(self) -> torch.device:
        """Where the network and its input lie."""

    @property
    def graphs(self) -> str:
        """Whether forward passes are recorded, or why not."""

    def overlaps(self, image: Tensor) -> bool:
        """Whether windows of an image should be copied while others are computed."""

    def stage(self, windows: Tensor) -> Arriving:
        """Begin to copy windows (N, C, *window) from the host to the device."""

    def run(self, network: nn.Module, batch: Tensor) -> Tensor:
        """One forward pass in the accelerator's precision, (N, C, *window) → (N, K, *window)."""

    def fetch(self, scores: Tensor) -> Returning:
        """Begin to copy scores to the host."""

    def settle(self) -> None:
        """Wait until no copy is on its way."""

    def release(self) -> bool:
        """Give back what is held for speed only, for good; whether there was any."""

    def synchronise(self) -> None:
        """Wait until everything that was started is done, for a time that is true."""

    def memory(self) -> MemoryUse:
        """How much memory is used; starts no work and waits for none."""

    def reset_peak(self) -> None:
        """Count the peak from now on, where that can be done."""


def accelerator_for(
    device: torch.device, arithmetic: Arithmetic, *, graphs: bool | None = None
) -> Accelerator:
    """The accelerator of a device.

    Args:
        device: one that PyTorch can use here.
        arithmetic: the precision of forward passes.
        graphs: whether they are recorded, on CUDA; None asks ``SEGMAMBA_CUDA_GRAPHS``.

    Raises:
        OptionError: the variable is neither 0 nor 1.
    """
    wanted = _graphs_wanted() if graphs is None else graphs
    if device.type == "cuda":
        return StreamedAccelerator(CudaKit(device), arithmetic, graphs=wanted)
    return PlainAccelerator(device, arithmetic)


class _There:
    """What needs no copy: it is where it has to be."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def arrived(self) -> Tensor:
        return self._tensor

    def consumed(self) -> None:
        pass

    def result(self) -> Tensor:
        return self._tensor


class PlainAccelerator:
    """A device as PyTorch drives it, one thing after another; on a CPU nothing is copied.

    Args:
        device: the CPU, or a device other than CUDA.
        arithmetic: the precision of forward passes.
    """

    graphs: Final = "not on this device"

    def __init__(self, device: torch.device, arithmetic: Arithmetic) -> None:
        self._device, self._arithmetic = device, arithmetic

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self._device

    def overlaps(self, image: Tensor) -> bool:  # noqa: ARG002 - the interface asks for it
        """Never: there is nothing to overlap with."""
        return False

    def stage(self, windows: Tensor) -> Arriving:
        """Copy, unless the windows are there."""
        return _There(windows.to(self._device))

    def run(self, network: nn.Module, batch: Tensor) -> Tensor:
        """One forward pass."""
        with self._arithmetic():
            scores: Tensor = network(batch)
        return scores

    def fetch(self, scores: Tensor) -> Returning:
        """Copy, unless the scores are on the host."""
        return _There(scores.cpu())

    def settle(self) -> None:
        """Nothing is ever on its way."""

    def release(self) -> bool:
        """Nothing is held."""
        return False

    def synchronise(self) -> None:
        """PyTorch has waited already."""

    def memory(self) -> MemoryUse:
        """The process's resident memory, whose peak is that since its start."""
        used = psutil.Process().memory_info().rss
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return MemoryUse(used=used, peak=max(used, peak), reserved=0)

    def reset_peak(self) -> None:
        """The operating system keeps it."""


class StreamedAccelerator:
    """A device with streams: copies beside the computation, and recorded forward passes.

    Args:
        kit: the device's primitives.
        arithmetic: the precision of forward passes, without a cache of converted weights.
        graphs: whether forward passes are recorded.
    """

    def __init__(self, kit: DeviceKit, arithmetic: Arithmetic, *, graphs: bool = True) -> None:
        self._kit = kit
        self._replayer = Replayer(kit, arithmetic, enabled=graphs)
        self._pipes: tuple[Inbound, Outbound] | None = None

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self._kit.device

    @property
    def graphs(self) -> str:
        """For example ``"1 recorded"``, or ``"off: …"``."""
        problem = self._replayer.problem
        return f"off: {problem}" if problem else f"{len(self._replayer)} recorded"

    def overlaps(self, image: Tensor) -> bool:
        """Whether the image lies elsewhere, so that its windows have to be copied."""
        return image.device.type != self.device.type

    def stage(self, windows: Tensor) -> Arriving:
        """Pack the windows into page-locked memory and begin to copy them."""
        return self._both()[0].stage(windows)

    def run(self, network: nn.Module, batch: Tensor) -> Tensor:
        """One forward pass, replayed where it is recorded."""
        return self._replayer.run(network, batch)

    def fetch(self, scores: Tensor) -> Returning:
        """Begin to copy into page-locked memory."""
        return self._both()[1].fetch(scores)

    def settle(self) -> None:
        """Wait for both directions."""
        for pipe in self._pipes or ():
            pipe.settle()

    def release(self) -> bool:
        """Drop all recordings on the device for good, other models' too, and the places of copies.

        Those come again when they are needed. Only recordings count as something to try again
        without.
        """
        self.settle()
        self._pipes = None
        had = self._replayer.forget(_RAN_OUT)
        return forget_all(self.device, _RAN_OUT) or had

    def synchronise(self) -> None:
        """Wait for the device."""
        self._kit.synchronise()

    def memory(self) -> MemoryUse:
        """The device's memory."""
        return self._kit.memory()

    def reset_peak(self) -> None:
        """Count the peak from now on."""
        self._kit.reset_peak()

    def _both(self) -> tuple[Inbound, Outbound]:
        if self._pipes is None:
            self._pipes = Inbound(self._kit), Outbound(self._kit)
        return self._pipes


def _graphs_wanted() -> bool:
    value = os.environ.get(GRAPHS_VARIABLE, "1")
    if value in ("0", "1"):
        return value == "1"
    raise OptionError(
        GRAPHS_VARIABLE,
        expected="0 or 1",
        got=repr(value),
        way_out="Leave it out to have forward passes recorded on CUDA.",
    )
