"""Children of a fork server: started in milliseconds, watched, ended, never left behind.

The fork server is the standard library's, an instance of our own: its parent's threads, CUDA
context and open files are unknown to it. It reaps every child and ends when this process does.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import forkserver
from types import TracebackType
from typing import Final

from service.reading.child import Errand
from service.reading.sockets import choose_socket_folder

__all__ = ["Child", "Nursery", "ServerLostError"]

_PRELOAD: Final = ("service.reading.preload",)
_START_SECONDS: Final = 60.0
"""For the first child, which waits until the fork server has loaded its modules."""
_DYING_SECONDS: Final = 2.0
"""For a killed fork server to be gone."""
_END_SECONDS: Final = 10.0
"""For a killed process to be gone."""
_NUMBER_BYTES: Final = forkserver.SIGNED_STRUCT.size


class ServerLostError(RuntimeError):
    """The fork server died, or does not answer; no input is to blame."""


class Nursery:
    """A fork server, from the first child on until `close`."""

    def __init__(self) -> None:
        self._server = forkserver.ForkServer()
        self._server.set_forkserver_preload(list(_PRELOAD))

    def warm_up(self) -> None:
        """Start the fork server, so that the first child need not wait for it.

        Raises:
            OptionError: there is no folder for its socket.
        """
        choose_socket_folder()
        self._server.ensure_running()

    def start(self, errand: Errand, descriptors: Sequence[int]) -> Child:
        """Start a child that does an errand and inherits these descriptors.

        Raises:
            ServerLostError: the fork server does not work.
        """
        status, inbox = self._connect(list(descriptors))
        child = Child(status)
        try:
            _send(inbox, errand)
            child.meet()
        except BaseException:
            child.close()
            raise
        return child

    def _connect(self, descriptors: list[int]) -> tuple[int, int]:
        """Ask for a child; a dying fork server takes a moment to be known as dead and replaced."""
        end = time.monotonic() + _DYING_SECONDS
        while True:
            try:
                return self._server.connect_to_new_process(descriptors)
            except OSError as error:
                if time.monotonic() > end:
                    raise ServerLostError("The fork server takes no requests.") from error
            time.sleep(_DYING_SECONDS / 100)

    def close(self) -> None:
        """End the fork server; its children must have ended."""
        self._server._stop()  # type: ignore[attr-defined]  # there is no public way


class Child:
    """One process, by the descriptor on which the fork server tells its number and its end."""

    def __init__(self, status: int) -> None:
        self._status = status
        self._pid = 0
        self._code: int | None = None
        self._look = select.poll()
        self._look.register(status, select.POLLIN)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def meet(self) -> None:
        """Wait until the process exists.

        Raises:
            ServerLostError: it never does.
        """
        self._pid = self._number(_START_SECONDS) or 0
        if self._pid <= 0:
            raise ServerLostError("The fork server does not answer.")

    def wait(self, seconds: float) -> int | None:
        """Wait for the end; the exit status, negative for a signal, or None while it runs on.

        Raises:
            ServerLostError: the fork server is gone, and with it the news.
        """
        if self._code is None:
            self._code = self._number(seconds)
        return self._code

    def kill(self) -> None:
        """End the process and wait until it is gone."""
        if self._pid > 0 and self.wait(0) is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self.wait(_END_SECONDS)

    def close(self) -> None:
        """End the process if it runs, and forget it."""
        try:
            self.kill()
        except ServerLostError:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        finally:
            os.close(self._status)

    def _number(self, seconds: float) -> int | None:
        """The next number from the fork server; None if it does not come in time."""
        if not self._look.poll(max(0.0, seconds) * 1000):
            return None
        said = b""
        while len(said) < _NUMBER_BYTES:
            piece = os.read(self._status, _NUMBER_BYTES - len(said))
            if not piece:
                raise ServerLostError("The fork server is gone.")
            said += piece
        number: int = forkserver.SIGNED_STRUCT.unpack(said)[0]
        return number


def _send(inbox: int, errand: Errand) -> None:
    """Hand over what `multiprocessing.spawn` expects: preparations, then what to run."""
    preparations = {"name": "reading", "sys_path": sys.path}
    try:
        with os.fdopen(inbox, "wb") as pipe:
            pipe.write(pickle.dumps(preparations) + pickle.dumps(errand))
    except BrokenPipeError as error:
        raise ServerLostError("The fork server dropped a request.") from error
