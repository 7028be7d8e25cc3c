"""Recorded forward passes: a network's work on the device, started as a whole instead of piecewise.

A forward pass is hundreds to thousands of small pieces of work, and the host that hands them over
one by one may be slower than the device. A recording is handed over once. It is bound to the shape
and the type of its input and to the memory that it was made with, so

* a pass is recorded only after some ordinary ones of the same shape, which do what happens once
  (compiling, choosing algorithms), and only for full batches: the smaller last one of a study is
  not worth the memory;
* input and result are copied into and out of the memory that the recording knows;
* a recording is used only after it gave what the ordinary pass gave for the same input;
* weights that are exchanged or changed make every recording void.

Whatever cannot be recorded runs as before, and one log event says why. Where memory runs out, the
recordings of every model on the device are given back, each between two passes of its own.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock, RLock
from typing import Final, NamedTuple
from weakref import WeakSet, ref

import torch
from torch import Tensor, nn

from model_core.inference.streams import DeviceKit, Graph

logger = logging.getLogger("model_core.inference")

WARM_UP: Final = 2
"""Ordinary passes of a shape before one is recorded."""
KEPT: Final = 2
"""Recordings in memory; each holds what one forward pass takes."""
TOLERANCE: Final = 1e-2
"""Relative distance (L2) from the ordinary pass, up to which a recording is right. Both run the
same kernels: sums in another order differ by far less, other memory by far more."""

_KNOWN: Final[WeakSet[Replayer]] = WeakSet()
"""Those of every model in this process, read and added to under the lock."""
_KNOWN_LOCK: Final = Lock()


class _Key(NamedTuple):
    """What a recording is bound to, besides the weights."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class _Recording(NamedTuple):
    graph: Graph
    given: Tensor
    result: Tensor


class Replayer:
    """Runs a network, by a recording where there is one.

    Args:
        kit: the device.
        arithmetic: the context of one forward pass. It must keep no weights in another precision
            from one pass to the next (autocast's cache): a recording would read them later.
        enabled: whether passes are recorded at all.
    """

    def __init__(
        self,
        kit: DeviceKit,
        arithmetic: Callable[[], AbstractContextManager[object]],
        *,
        enabled: bool = True,
    ) -> None:
        self._kit, self._arithmetic = kit, arithmetic
        self._problem = "" if enabled else "switched off"
        self._seen: dict[_Key, int] = {}
        self._recordings: OrderedDict[_Key, _Recording] = OrderedDict()
        self._network: ref[nn.Module] | None = None
        self._weights: tuple[tuple[int, int], ...] = ()
        self._turn = RLock()
        with _KNOWN_LOCK:
            _KNOWN.add(self)

    @property
    def problem(self) -> str:
        """Why nothing is recorded; empty where passes are, or will be."""
        return self._problem

    @property
    def device(self) -> torch.device:
        """Whose memory the recordings hold."""
        return self._kit.device

    def __len__(self) -> int:
        """How many recordings there are."""
        return len(self._recordings)

    def run(self, network: nn.Module, batch: Tensor) -> Tensor:
        """One forward pass.

        Args:
            network: in evaluation mode, on the device.
            batch: (N, C, *window), on the device.

        Returns:
            The network's answer; never memory that a later pass writes to.
        """
        with self._turn:
            return self._run(network, batch)

    def _run(self, network: nn.Module, batch: Tensor) -> Tensor:
        if self._problem:
            return self._ordinary(network, batch)
        self._notice(network)
        key = _Key(tuple(batch.shape), batch.dtype)
        if key in self._recordings:
            self._recordings.move_to_end(key)
            return self._replayed(self._recordings[key], batch)
        answer = self._ordinary(network, batch)
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] > WARM_UP and self._is_full(key):
            self._try_to_record(network, batch, key, answer)
        return answer

    def forget(self, problem: str = "") -> bool:
        """Give the recordings' memory back, once no pass runs and the device has done its work.

        Args:
            problem: why nothing is to be recorded any more, if there was a recording.

        Returns:
            Whether there was one.
        """
        with self._turn:
            had = bool(self._recordings)
            if had:
                self._kit.synchronise()
                self._problem = problem
            self._recordings.clear()
            self._seen.clear()
            return had

    def _notice(self, network: nn.Module) -> None:
        """Drop what was recorded with other weights."""
        weights = _fingerprint(network)
        known = None if self._network is None else self._network()
        if known is not network or weights != self._weights:
            self.forget()
            self._network, self._weights = ref(network), weights

    def _is_full(self, key: _Key) -> bool:
        """Whether no larger batch of such windows was seen."""
        batch, *window = key.shape
        return not any(
            other.shape[0] > batch for other in self._seen if list(other.shape[1:]) == window
        )

    def _ordinary(self, network: nn.Module, batch: Tensor) -> Tensor:
        with self._arithmetic():
            answer: Tensor = network(batch)
        return answer

    def _try_to_record(
        self, network: nn.Module, batch: Tensor, key: _Key, expected: Tensor
    ) -> None:
        try:
            recording = self._recorded(network, batch)
            close = _agree(self._replayed(recording, batch), expected)
        except Exception as error:  # noqa: BLE001 - whatever it is, the ordinary answer is there
            self._give_up(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
            return
        if not close:
            self._give_up("a recorded pass differed from an ordinary one")
            return
        self._recordings[key] = recording
        while len(self._recordings) > KEPT:
            self._recordings.popitem(last=False)

    def _recorded(self, network: nn.Module, batch: Tensor) -> _Recording:
        given = torch.zeros(batch.shape, dtype=batch.dtype, device=batch.device)
        graph, result = self._kit.record(lambda: self._ordinary(network, given))
        return _Recording(graph, given, result)

    def _replayed(self, recording: _Recording, batch: Tensor) -> Tensor:
        """Everything in the computing stream, so in order without a wait."""
        self._kit.copy(recording.given, batch)
        recording.graph.replay()
        answer = torch.empty_like(recording.result)
        self._kit.copy(answer, recording.result)
        return answer

    def _give_up(self, problem: str) -> None:
        self.forget()
        self._problem = problem
        logger.warning(
            "forward passes are not recorded as a graph; they run one kernel after another",
            extra={"reason": problem},
        )


def forget_all(device: torch.device, problem: str) -> bool:
    """Give back the recordings on a device, whichever model of this process they are of.

    Args:
        device: whose memory is wanted.
        problem: why nothing is to be recorded any more, where there was a recording.

    Returns:
        Whether there was one.
    """
    with _KNOWN_LOCK:
        known = list(_KNOWN)
    held = [one for one in known if len(one) and _same(one.device, device)]
    return sum(one.forget(problem) for one in held) > 0


def _same(one: torch.device, other: torch.device) -> bool:
    """Whether both names are of one device; without a number it is the first."""
    return (one.type, one.index or 0) == (other.type, other.index or 0)


def _fingerprint(network: nn.Module) -> tuple[tuple[int, int], ...]:
    """Where the weights lie, and how often they were written to."""
    held = (*network.parameters(), *network.buffers())
    return tuple((one.data_ptr(), 0 if one.is_inference() else one._version) for one in held)


def _agree(got: Tensor, expected: Tensor) -> bool:
    """Whether the two are as near as rounding; NaN and infinity are not."""
    distance = (got.float() - expected.float()).norm()
    return bool(distance <= TOLERANCE * expected.float().norm())
