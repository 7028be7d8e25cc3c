"""How a worker hears of a job at once: a bell beside the engine's poll.

The engine looks into its queue every few seconds, which is cheap and slow. The bell makes it look
now: on SQLite when another connection has written to the file (`PRAGMA data_version`, a few
microseconds to ask), on PostgreSQL when the submitting transaction notifies (LISTEN/NOTIFY).
A lost ring costs one polling interval and no job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import psycopg
import sqlalchemy as sa

logger = logging.getLogger("service.jobs")

CHANNEL: Final = "segmamba_jobs"
_LOOK_SECONDS: Final = 0.03
_BUSY_SECONDS: Final = 0.05
_LISTEN_SECONDS: Final = 1.0
_RECONNECT_SECONDS: Final = 1.0


class Bell(threading.Event):
    """A stop event whose `wait` also ends when the bell rings, but not while its owner is busy.

    The engine counts what it runs, and a job that it has just taken only a moment later: asked
    again within that moment, which it is after a ring, it would take a second one.

    Args:
        busy: whether a job is here, or on its way.
    """

    def __init__(self, busy: Callable[[], bool]) -> None:
        super().__init__()
        self._rung = threading.Event()
        self._busy = busy

    def ring(self) -> None:
        """End the current wait, or the next one."""
        self._rung.set()

    def set(self) -> None:
        """Stop whoever waits, for good."""
        super().set()
        self._rung.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the stop, or for a ring or the time and then an idle owner; which it was."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._rung.is_set():
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            self._rung.wait(left if left is None else min(left, 1.0))
        self._rung.clear()
        while self._busy() and not super().wait(_BUSY_SECONDS):
            pass
        return self.is_set()


def announce(connection: sa.Connection) -> None:
    """Ring on commit, where the database does not notice by itself."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"NOTIFY {CHANNEL}"))


def listen(engine: sa.Engine, bell: Bell) -> threading.Thread:
    """Ring the bell for every change until it is stopped; gives the thread that does."""
    watch = _watch_file if engine.dialect.name == "sqlite" else _listen_to_server
    thread = threading.Thread(target=watch, args=(engine, bell), name="bell", daemon=True)
    thread.start()
    return thread


def _watch_file(engine: sa.Engine, bell: Bell) -> None:
    with engine.connect() as connection:
        raw = connection.connection.cursor()
        known = None
        while not bell.is_set():
            version = raw.execute("PRAGMA data_version").fetchone()[0]
            if version != known:
                known = version
                bell.ring()
            time.sleep(_LOOK_SECONDS)


def _listen_to_server(engine: sa.Engine, bell: Bell) -> None:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    while not bell.is_set():
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"LISTEN {CHANNEL}")
                bell.ring()
                while not bell.is_set():
                    for _ in connection.notifies(timeout=_LISTEN_SECONDS, stop_after=1):
                        bell.ring()
        except psycopg.Error as error:
            logger.warning("no notifications", extra={"exception": type(error).__name__})
            time.sleep(_RECONNECT_SECONDS)
