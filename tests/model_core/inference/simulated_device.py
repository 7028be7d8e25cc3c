"""A device with streams, simulated: does its work as late, or as early, as the waits allow.

The real logic of `transfer` and `graphs` runs on it. Memory is the host's; what is simulated is
time. A stream that is *late* does nothing until the host waits for it or another stream needs it to
go on; one that is not does its work at once, or as soon as what it waits for has happened. Whatever
a wait does not order therefore happens in the wrong order in one of the schedules, and the numbers
are wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from model_core.inference.streams import MemoryUse

NAMES = ("computing", "in", "out")
SCHEDULES = [
    frozenset(name for name, late in zip(NAMES, lates, strict=True) if late)
    for lates in product((False, True), repeat=3)
]
"""Which streams are late."""


class SimulatedEvent:
    def __init__(self, kit: SimulatedKit) -> None:
        self._kit = kit
        self.mark: Mark | None = None

    def record(self, stream: Any) -> None:
        self.mark = Mark(stream)
        stream.give(self.mark)

    def synchronize(self) -> None:
        if self.mark is None or ("host", self.mark.stream.name) in self._kit.forgotten:
            return
        self._kit.log.append(f"host waits for {self.mark.stream.name}")
        self.mark.stream.drain(self.mark)
        self._kit.go_on()


class Mark:
    """A place in a stream that was come to, or not yet."""

    def __init__(self, stream: SimulatedStream) -> None:
        self.stream, self.done = stream, False


class Wait:
    def __init__(self, mark: Mark) -> None:
        self.mark = mark


class SimulatedStream:
    def __init__(self, kit: SimulatedKit, name: str) -> None:
        self._kit, self.name = kit, name
        self.queue: deque[Any] = deque()

    def wait_event(self, event: SimulatedEvent) -> None:
        mark = event.mark
        if mark is None or (self.name, mark.stream.name) in self._kit.forgotten:
            return
        self.give(Wait(mark))

    def synchronize(self) -> None:
        self.drain()
        self._kit.go_on()

    def give(self, work: Any) -> None:
        self.queue.append(work)
        self._kit.go_on()

    def go_on(self) -> bool:
        """Do what can be done now; whether anything was.

        What a network computes outside of `SimulatedKit.launch` happens when it is called, so a
        computing stream that is not late has what it waits for done first.
        """
        moved = False
        while self.queue and self._can(self.queue[0]):
            self._do(self.queue.popleft())
            moved = True
        return moved

    def _can(self, work: Any) -> bool:
        if isinstance(work, Wait) and not work.mark.done and self.name == "computing":
            work.mark.stream.drain(work.mark)
        return not isinstance(work, Wait) or work.mark.done

    def drain(self, until: Mark | None = None) -> None:
        """Do everything, or what comes up to a mark, and what that waits for."""
        while self.queue and not (until and until.done):
            if isinstance(self.queue[0], Wait):
                self.queue[0].mark.stream.drain(self.queue[0].mark)
            self._do(self.queue.popleft())

    def _do(self, work: Any) -> None:
        if isinstance(work, Mark):
            work.done = True
        elif not isinstance(work, Wait):
            work()


class SimulatedGraph:
    def __init__(self, kit: SimulatedKit, work: list[Callable[[], object]]) -> None:
        self._kit, self._work = kit, work

    def replay(self) -> None:
        self._kit.replays += 1
        for one in self._work:
            self._kit.computing().give(one)


class SimulatedKit:
    """The primitives; `forgotten` names waits that are left out: (who waits, for which stream)."""

    device = torch.device("cuda")

    def __init__(
        self,
        late: frozenset[str] = frozenset(),
        forgotten: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        self.forgotten = forgotten
        self.log: list[str] = []
        self.replays = self.launched = 0
        self.recording: list[Callable[[], object]] | None = None
        self._late = late
        self._streams = [SimulatedStream(self, "computing")]
        self._current = self._streams[0]

    def computing(self) -> Any:
        return self._streams[0]

    def side_stream(self) -> Any:
        self._streams.append(SimulatedStream(self, NAMES[2 - len(self._streams) % 2]))
        return self._streams[-1]

    def event(self) -> Any:
        return SimulatedEvent(self)

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        before, self._current = self._current, stream
        yield
        self._current = before

    def host_buffer(self, numel: int, dtype: torch.dtype) -> Tensor:
        return torch.full((numel,), float("nan"), dtype=dtype)

    device_buffer = host_buffer

    def copy(self, target: Tensor, source: Tensor) -> None:
        assert target.shape == source.shape
        if self._current is not self.computing():
            assert source.is_contiguous()
            assert target.is_contiguous()
        self.log.append(f"copy {self._current.name}")
        self._current.give(lambda: target.copy_(source))

    def record(self, function: Callable[[], Tensor]) -> tuple[Any, Tensor]:
        self.recording = []
        try:
            result = function()
            return SimulatedGraph(self, self.recording), result
        finally:
            self.recording = None

    def synchronise(self) -> None:
        for stream in self._streams:
            stream.drain()

    def memory(self) -> MemoryUse:
        return MemoryUse(used=1, peak=2, reserved=3)

    def reset_peak(self) -> None:
        pass

    def launch(self, function: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        """Give a computation to the device; its result's memory is there at once."""
        like = function(torch.zeros_like(given))
        result = torch.full_like(like, float("nan"))

        def work() -> object:
            return result.copy_(function(given))

        if self.recording is not None:
            self.recording.append(work)
        else:
            self.launched += 1
            self.log.append("launch")
            self.computing().give(work)
        return result

    def go_on(self) -> None:
        """Every stream that is not late does what it can."""
        while any(stream.go_on() for stream in self._streams if stream.name not in self._late):
            pass

    def pending(self) -> int:
        """Pieces of work that copies still have to do."""
        return sum(len(stream.queue) for stream in self._streams[1:])


class Launched(nn.Module):
    """A network whose work is given to the simulated device, as kernels are."""

    def __init__(self, kit: SimulatedKit, inner: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = inner
        self.kit = kit

    def forward(self, batch: Tensor) -> Tensor:
        return self.kit.launch(self.inner, batch)
