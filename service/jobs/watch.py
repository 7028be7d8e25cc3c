"""Waiting for changes of jobs, without asking once per waiting caller.

One thread asks the database for all jobs that anybody waits for, a few times a second, and only
after something was written: on SQLite by its change counter. Callers wait on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import Final

import sqlalchemy as sa

from service.jobs.records import Job
from service.jobs.store import JobStore
from service.jobs.tables import jobs

_LOOK_SECONDS: Final = 0.05
_Place = tuple[asyncio.AbstractEventLoop, "asyncio.Queue[Job | None]"]


class Watch:
    """Tells callers of changed jobs.

    Args:
        store: of the jobs.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._waiting: dict[str, list[_Place]] = defaultdict(list)
        self._revisions: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; who waits, waits in vain."""
        self._stop.set()
        self._thread.join(5)

    async def changes(self, job: Job) -> AsyncGenerator[Job, None]:
        """The job now, and whenever it has changed, until it has ended or is deleted.

        Changes that follow each other closely may be joined, and one may come twice.
        """
        news: asyncio.Queue[Job | None] = asyncio.Queue()
        place = (asyncio.get_running_loop(), news)
        with self._lock:
            self._waiting[job.id].append(place)
            # the older one: whoever knows an earlier state must hear of what came after it
            self._revisions[job.id] = min(job.revision, self._revisions.get(job.id, job.revision))
        try:
            yield job
            while job.open and (changed := await news.get()) is not None:
                job = changed
                yield job
        finally:
            with self._lock:
                self._waiting[job.id].remove(place)
                if not self._waiting[job.id]:
                    del self._waiting[job.id], self._revisions[job.id]

    def _look(self) -> None:
        seen = None
        while not self._stop.wait(_LOOK_SECONDS):
            with self._lock:
                known = dict(self._revisions)
            if not known:
                continue
            with contextlib.suppress(sa.exc.SQLAlchemyError):  # it will be back
                version = (self._version(), frozenset(known.items()))
                if version[0] is None or version != seen:
                    self._tell(known)
                    seen = version

    def _version(self) -> int | None:
        """SQLite's change counter by a connection that never writes; None: ask anyway."""
        if self._store.engine.dialect.name != "sqlite":
            return None
        if not hasattr(self, "_counter"):
            self._counter = self._store.engine.connect()
        cursor = self._counter.connection.cursor()
        return int(cursor.execute("PRAGMA data_version").fetchone()[0])

    def _tell(self, known: dict[str, int]) -> None:
        found = {job.id: job for job in self._store.select(jobs.c.id.in_(known))}
        with self._lock:
            for job_id, revision in known.items():
                job = found.get(job_id)
                if job is None or job.revision != revision:
                    self._pass_on(job_id, job)

    def _pass_on(self, job_id: str, job: Job | None) -> None:
        if job is not None and job_id in self._revisions:
            self._revisions[job_id] = job.revision
        for loop, news in self._waiting.get(job_id, ()):
            with contextlib.suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(news.put_nowait, job)
