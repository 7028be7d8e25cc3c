"""`JobEngine`: what the API does with jobs. Everything is durable before it is answered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import NAMESPACE_URL, uuid4, uuid5

import sqlalchemy as sa

from service.jobs.bell import announce
from service.jobs.database import open_database
from service.jobs.queue import JobQueue, migrate, order_of
from service.jobs.records import OPEN_STATES, PRIORITIES, Job, NewJob, State, Worker
from service.jobs.store import JobStore
from service.jobs.tables import jobs

REMEMBERED: Final = 20
"""Jobs whose running time makes the estimate of the next one's."""
UNKNOWN_SECONDS: Final = 30.0
"""Estimate before any job has ended."""
_KEYS: Final = uuid5(NAMESPACE_URL, "urn:segmamba:idempotency-key")


class FullQueueError(Exception):
    """As many jobs wait as may."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} jobs wait already")
        self.waiting = waiting


class ReusedKeyError(Exception):
    """An idempotency key came with another request than the first time."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A job that is there now, and whether this call made it."""

    job: Job
    is_new: bool


class JobEngine:
    """Jobs of one database, for any number of processes at a time.

    Args:
        url: see `service.jobs.database.open_database`; tables are made or updated.
        queue_limit: how many jobs may wait; None: any number.
    """

    def __init__(self, url: str, *, queue_limit: int | None = None) -> None:
        self.database = open_database(url)
        self.store = JobStore(self.database)
        self.store.create_tables()
        migrate(url)
        self._queue = JobQueue(self.database)
        self._limit = queue_limit

    def close(self) -> None:
        """Give the connections back."""
        self._queue.close()
        self.database.dispose()

    def submit(self, new: NewJob) -> Submitted:
        """Make a job, unless the same one is there already.

        A job whose result is known ends at once. Everything else is one transaction: what this
        answers has been written.

        Raises:
            FullQueueError: as many jobs wait as may.
            ReusedKeyError: the idempotency key is that of another request.
        """
        job_id = id_of(new)
        earlier = self.store.get(job_id, new.owner) if new.idempotency_key else None
        if earlier is None:
            try:
                with self.database.begin() as connection:
                    self._add(connection, job_id, new)
            except sa.exc.IntegrityError:  # the same key came twice at the same time
                earlier = self.store.get(job_id, new.owner)
                if earlier is None:
                    raise
        if earlier is not None and earlier.fingerprint != new.fingerprint:
            raise ReusedKeyError
        return Submitted(job=earlier or self._present(job_id), is_new=earlier is None)

    def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """A job, if it exists and is the owner's (None: anybody's)."""
        return self.store.get(job_id, owner)

    def list(
        self,
        owner: str | None = None,
        *,
        state: State | None = None,
        batch: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Jobs, the newest first.

        Args:
            owner: whose; None: anybody's.
            state: only these.
            batch: only these.
            before: only those with a lower number: the next page.
            limit: how many at most.
        """
        conditions = [
            *([jobs.c.state == state] if state else []),
            *([jobs.c.batch == batch] if batch else []),
            *([jobs.c.number < before] if before else []),
        ]
        return self.store.select(*conditions, owner=owner, limit=limit)

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that waits or runs; whether there was one."""
        cancelled = self.store.cancel(job_id)
        if cancelled:
            self._queue.take_out(job_id)
        return cancelled

    def position(self, job: Job) -> int | None:
        """Place in the queue, the next one 1; None where it does not wait."""
        return self.store.ahead_of(job) + 1 if job.state == "queued" else None

    def eta_seconds(self, job: Job, now_ms: int) -> float | None:
        """Seconds until a job ends, by the running times of the last ones; None if it has."""
        if not job.open:
            return None
        usual = self.usual_seconds()
        running = self.count("running")
        hands = max(1, self.hands())
        if job.state == "running":
            return _left(job, usual, now_ms)
        return usual * (self.store.ahead_of(job) + running / 2) / hands + usual

    def usual_seconds(self) -> float:
        """Running time to expect of a job."""
        return self.store.mean_seconds(REMEMBERED) or UNKNOWN_SECONDS

    def hands(self) -> int:
        """Workers that take jobs."""
        return sum(worker.state == "ready" for worker in self.workers())

    def count(self, state: State) -> int:
        """How many jobs are in a state."""
        return self.store.count(jobs.c.state == state)

    def batch(self, batch: str, owner: str | None) -> dict[State, int]:
        """How many jobs of a batch are in which state; empty where there are none."""
        return self.store.count_by_state(*_of(batch, owner))

    def open_in(self, batch: str, owner: str | None) -> Sequence[Job]:
        """Jobs of a batch that wait or run."""
        return self.store.select(*_of(batch, owner), jobs.c.state.in_(OPEN_STATES))

    def forget(self, job: Job) -> None:
        """Delete an ended job; its files come afterwards."""
        self._forget([job.id])

    def workers(self) -> Collection[Worker]:
        """The workers that are there."""
        return self.store.workers()

    def uses(self, upload: str) -> bool:
        """Whether an open job has an upload as its input."""
        return self.store.count(jobs.c.upload == upload, jobs.c.state.in_(OPEN_STATES)) > 0

    def orphans(self, results: Collection[str]) -> set[str]:
        """Of the ids under which results lie, those of which no job speaks."""
        return set(results) - self.store.known_results(results)

    def sweep(self, age_seconds: float, forget: Callable[[Job], None], *, limit: int = 200) -> int:
        """Delete ended jobs of an age; `forget` deletes their files afterwards. Tells how many.

        The other way round, a job that comes in between would share a result that is gone.
        """
        old = self.store.ended_before(int(age_seconds * 1000), limit)
        if old:
            self._forget([job.id for job in old])
        for job in old:
            forget(job)
        return len(old)

    def _forget(self, ids: Sequence[str]) -> None:
        self._queue.forget(list(ids))
        self.store.delete(ids)

    def _add(self, connection: sa.Connection, job_id: str, new: NewJob) -> None:
        number = self.store.insert(connection, job_id, new)
        known = self.store.answered(connection, new)
        if known is not None:
            self.store.answer(connection, job_id, known)
            return
        self._queue.put(connection, job_id, order=order_of(number, PRIORITIES.index(new.priority)))
        announce(connection)
        # counted after the insert: a writer holds SQLite's only lock, PostgreSQL may overshoot
        waiting = self.store.count_in(connection, jobs.c.state == "queued") - 1
        if self._limit is not None and waiting >= self._limit:
            raise FullQueueError(waiting)

    def _present(self, job_id: str) -> Job:
        job = self.store.get(job_id)
        assert job is not None, "it was written by this call"
        return job


def _of(batch: str, owner: str | None) -> list[sa.ColumnElement[bool]]:
    mine = [] if owner is None else [jobs.c.owner == owner]
    return [jobs.c.batch == batch, *mine]


def id_of(new: NewJob) -> str:
    """The id that a submission gets: the same for the same caller's key, else a new one."""
    if new.idempotency_key is None:
        return uuid4().hex
    return uuid5(_KEYS, f"{new.owner}\n{new.idempotency_key}").hex


def _left(job: Job, usual: float, now_ms: int) -> float:
    """By its own windows once some are done, else by the usual time."""
    gone = max(0.0, (now_ms - (job.started or now_ms)) / 1000)
    if job.total and job.done:
        return gone * (job.total - job.done) / job.done
    return max(1.0, usual - gone)
