"""A worker's sign of life to the process that started it: a byte through a pipe, again and again.

It stops with the worker's threads, whatever holds them up, and needs no database: one that is away
makes nobody look dead.
"""

from __future__ import annotations

import os
import threading
import time
from math import inf
from typing import Final

PULSE_VARIABLE: Final = "SEGMAMBA_PULSE"
"""Descriptor to write into; unset where a process runs by itself."""
_HELD_UP_SECONDS: Final = 1.0
"""Between two looks: the listener itself did not run, because the machine slept, for instance."""
_ENOUGH_BYTES: Final = 65_536


class Pulse:
    """The listener's side; `given` is the descriptor that a worker inherits."""

    def __init__(self) -> None:
        self._end, self.given = os.pipe()
        os.set_blocking(self._end, False)
        self._heard, self._looked = inf, time.monotonic()

    def handed_over(self) -> None:
        """The worker has its side now."""
        os.close(self.given)

    def silence(self) -> float:
        """Seconds without a sign of life; 0 before the first one. To be asked all the time.

        Time in which nobody listened does not count.
        """
        now, before = time.monotonic(), self._looked
        self._looked = now
        slept = self._heard < inf and now - before > _HELD_UP_SECONDS
        if self._read() or slept:
            self._heard = now
        return max(0.0, now - self._heard)

    def close(self) -> None:
        """Listen no more."""
        os.close(self._end)

    def _read(self) -> bool:
        try:
            return bool(os.read(self._end, _ENOUGH_BYTES))
        except BlockingIOError:
            return False


def give_pulse(seconds: float) -> None:
    """From now on, tell whoever started this process that its threads run.

    Args:
        seconds: between two signs.
    """
    descriptor = os.environ.get(PULSE_VARIABLE)
    if descriptor is None:
        return
    os.set_inheritable(int(descriptor), False)
    threading.Thread(
        target=_beat, args=(int(descriptor), seconds), name="pulse", daemon=True
    ).start()


def _beat(descriptor: int, seconds: float) -> None:
    try:
        while True:
            os.write(descriptor, b"\0")
            time.sleep(seconds)
    except BrokenPipeError:  # it is gone, and `service.parent` sees to that
        return
