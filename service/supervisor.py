"""The API and its workers as children of one small process: started, watched, replaced, ended.

A worker that dies is marked dead at once, with the cause, so that its job is begun again without
waiting for its silence; then another one takes its place, later and later if that dies too. One
that lives and gives no sign of life is killed, and replaced likewise.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from service.jobs.executor import HUNG_EXIT
from service.jobs.records import NO_PROGRESS
from service.jobs.store import JobStore
from service.parent import PARENT_VARIABLE
from service.pulse import PULSE_VARIABLE, Pulse

logger = logging.getLogger("service.supervisor")

WORKER_ID_VARIABLE: Final = "SEGMAMBA_WORKER_ID"
"""By which it knows its worker in the job database."""
_SEGMAMBA: Final = "from model_core.cli.main import main; main()"
_LOOK_SECONDS: Final = 0.1
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 60.0
_STEADY_SECONDS: Final = 60.0
"""A child that has lived so long has not died of its start."""
_LAST_SECONDS: Final = 10.0
"""After the grace time, before what is left is killed."""


@dataclass
class Child:
    """A process that should be there."""

    name: str
    arguments: Sequence[str]
    takes_jobs: bool
    pass_on: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    pulse: Pulse | None = None
    given_up: bool = False
    worker_id: str = ""
    started: float = 0.0
    pause: float = _FIRST_PAUSE
    due: float = field(default_factory=time.monotonic)


class Supervisor:
    """Runs children until a signal comes.

    Args:
        store: where a worker's death is told.
        grace_seconds: how long children may take to leave.
        silence_seconds: without a sign of life after which a worker is killed.
    """

    def __init__(self, store: JobStore, *, grace_seconds: float, silence_seconds: float) -> None:
        self._store, self._grace, self._silence = store, grace_seconds, silence_seconds
        self._children: list[Child] = []
        self._signals = 0

    def add(
        self,
        name: str,
        command: Sequence[str],
        *,
        takes_jobs: bool = False,
        pass_on: Sequence[int] = (),
    ) -> None:
        """Have a child.

        Args:
            name: for the log.
            command: what follows ``segmamba``.
            takes_jobs: it is a worker.
            pass_on: descriptors that it inherits under the same numbers.
        """
        arguments = [sys.executable, "-c", _SEGMAMBA, *command]
        self._children.append(Child(name, arguments, takes_jobs, tuple(pass_on)))

    def run(self) -> int:
        """Until SIGTERM or SIGINT; a second signal ends everything at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)
        while not self._signals:
            for child in self._children:
                self._tend(child)
            time.sleep(_LOOK_SECONDS)
        return self._end()

    def _hear(self, _number: int, _frame: object) -> None:
        self._signals += 1

    def _tend(self, child: Child) -> None:
        if child.process is None:
            if time.monotonic() >= child.due:
                self._start(child)
            return
        status = child.process.poll()
        if status is None:
            self._listen(child)
            return
        self._clear(child, "no sign of life" if child.given_up else describe_end(status))
        steady = status == 0 or time.monotonic() - child.started > _STEADY_SECONDS
        child.pause = _FIRST_PAUSE if steady else min(_LONGEST_PAUSE, 2 * child.pause)
        child.due = time.monotonic() + (0 if status == 0 else child.pause)

    def _listen(self, child: Child) -> None:
        """Kill a worker that is silent: what holds up all its threads may never end."""
        if child.pulse is None or child.pulse.silence() <= self._silence:
            return
        if not child.given_up:
            logger.error("a worker gives no sign of life: killed", extra={"child": child.name})
        child.given_up = True
        _send(child, signal.SIGKILL)

    def _clear(self, child: Child, cause: str) -> None:
        """A process has ended."""
        logger.warning("a process ended", extra={"child": child.name, "cause": cause})
        child.process = None
        if child.pulse is not None:
            child.pulse.close()
            child.pulse = None
        if child.takes_jobs:
            self._tell(child.worker_id, cause)

    def _start(self, child: Child) -> None:
        child.worker_id = f"{child.name}-{os.getpid()}-{uuid4().hex[:8]}"
        own = {PARENT_VARIABLE: str(os.getpid())}
        pass_on = child.pass_on
        child.given_up = False
        if child.takes_jobs:
            child.pulse = Pulse()
            pass_on = (*pass_on, child.pulse.given)
            own[WORKER_ID_VARIABLE] = child.worker_id
            own[PULSE_VARIABLE] = str(child.pulse.given)
        child.process = subprocess.Popen(  # noqa: S603 - our own command line
            child.arguments,
            env={**os.environ, **own},
            pass_fds=pass_on,
            start_new_session=True,  # Ctrl+C is for this process, which then asks them
        )
        if child.pulse is not None:
            child.pulse.handed_over()
        child.started = time.monotonic()

    def _tell(self, worker_id: str, cause: str) -> None:
        try:
            self._store.bury_early(worker_id, cause)
        except Exception as error:  # noqa: BLE001 - its silence will tell
            logger.warning("a death is not told", extra={"exception": type(error).__name__})

    def _end(self) -> int:
        """The API first: it stops taking work, while workers finish."""
        logger.info("shutting down")
        for child in self._children:
            _send(child, signal.SIGTERM)
        limit = time.monotonic() + self._grace + _LAST_SECONDS
        while any(_lives(child) for child in self._children):
            if self._signals > 1 or time.monotonic() > limit:
                for child in self._children:
                    _send(child, signal.SIGKILL)
            time.sleep(_LOOK_SECONDS)
        return 0 if self._signals == 1 else 1


def describe_end(status: int) -> str:
    """An exit status in words that fit any reader."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    if status == HUNG_EXIT:
        return NO_PROGRESS
    return f"exit status {status}"


def _lives(child: Child) -> bool:
    return child.process is not None and child.process.poll() is None


def _send(child: Child, number: int) -> None:
    if child.process is not None and _lives(child):
        child.process.send_signal(number)
