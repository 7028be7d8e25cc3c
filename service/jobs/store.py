"""The job table's statements: each change is one guarded UPDATE, so that nobody can undo another's.

A job's life, and who may change it::

    queued ──claim──► running ──complete/fail──► succeeded | failed
      ▲  │               │  │
      │  └───cancel──────┼──┴──► cancelled
      └────hand back─────┘            (its worker died, hung, or was asked to stop)

A worker's statements name the attempt that it was given. When a job has been claimed again, the
earlier attempt's statements match no row.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from model_core.errors import OptionError
from service.jobs.database import asked_again, now_ms
from service.jobs.records import (
    HANDED_BACK,
    OPEN_STATES,
    PRIORITIES,
    Job,
    NewJob,
    State,
    Worker,
)
from service.jobs.tables import SCHEMA_VERSION, jobs, metadata, schema, workers

logger = logging.getLogger("service.jobs")

_COLUMNS: Final = tuple(
    column
    for column in jobs.c
    if column.name not in ("worker", "crash", "input_bytes", "result_bytes", "upload")
)


class JobStore:
    """The statements, on one database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._now = now_ms(engine)

    def create_tables(self) -> None:
        """Make what is missing; tables of another version are left as they are.

        Raises:
            OptionError: the tables are of another version, or the database cannot be reached, read
                and written, or does not hold every letter.
        """
        try:
            with self.engine.begin() as connection:
                self._make_tables(connection)
        except sa.exc.DBAPIError as error:
            raise _not_usable(error) from error

    def _make_tables(self, connection: sa.Connection) -> None:
        if self.engine.dialect.name == "postgresql":
            encoding = connection.execute(sa.text("SHOW server_encoding")).scalar_one()
            if encoding != "UTF8":  # the engine of the queue cannot speak with it
                raise _of_another_encoding(encoding)
            # two processes may start at once
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(731946)"))
        schema.create(connection, checkfirst=True)
        found = connection.execute(sa.select(schema.c.version)).scalar()
        if found not in (None, SCHEMA_VERSION):
            raise _of_another_version(found)
        metadata.create_all(connection)
        for index in jobs.indexes:  # an older release made the table with fewer
            index.create(connection, checkfirst=True)
        if found is None:
            connection.execute(schema.insert().values(version=SCHEMA_VERSION))

    # callers

    def insert(self, connection: sa.Connection, job_id: str, new: NewJob) -> int:
        """Add a waiting job; gives its number."""
        values = {
            "id": job_id,
            "owner": new.owner,
            "state": "queued",
            "priority": PRIORITIES.index(new.priority),
            "batch": new.batch,
            "spec": dict(new.spec),
            "upload": new.spec.get("upload"),
            "cache_key": new.cache_key,
            "fingerprint": new.fingerprint,
            "input_bytes": new.input_bytes,
            "created": self._now,
        }
        inserted = connection.execute(jobs.insert().values(**values).returning(jobs.c.number))
        return int(inserted.scalar_one())

    def answer(self, connection: sa.Connection, job_id: str, old: Job) -> None:
        """End a job that was just added with an earlier one's result."""
        self._change(
            connection,
            jobs.c.id == job_id,
            state="succeeded",
            cached=True,
            source=old.source or old.id,
            result=old.result,
            started=self._now,
            ended=self._now,
        )

    def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """A job, if it exists and is the owner's (None: anybody's)."""
        found = self.select(jobs.c.id == job_id, owner=owner)
        return found[0] if found else None

    def select(
        self,
        *conditions: sa.ColumnElement[bool],
        owner: str | None = None,
        limit: int | None = None,
        newest: bool = True,
    ) -> list[Job]:
        """Jobs that meet all conditions."""
        query = sa.select(*_COLUMNS).where(*conditions)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        query = query.order_by(jobs.c.number.desc() if newest else jobs.c.number).limit(limit)
        with self.engine.connect() as connection:
            return [_job(row) for row in connection.execute(query).mappings()]

    def answered(self, connection: sa.Connection, new: NewJob) -> Job | None:
        """The owner's last succeeded job with the same cache key.

        It cannot be deleted before the transaction ends, which has to be a writer's by now: SQLite
        has one at a time, PostgreSQL locks the row.
        """
        if new.cache_key is None:
            return None
        query = (
            sa.select(*_COLUMNS)
            .where(
                jobs.c.cache_key == new.cache_key,
                jobs.c.owner == new.owner,
                jobs.c.state == "succeeded",
            )
            .order_by(jobs.c.number.desc())
            .limit(1)
            .with_for_update(read=True)
        )
        row = connection.execute(query).mappings().first()
        return None if row is None else _job(row)

    def count(self, *conditions: sa.ColumnElement[bool]) -> int:
        """How many jobs meet all conditions."""
        with self.engine.connect() as connection:
            return self.count_in(connection, *conditions)

    def count_in(self, connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> int:
        """`count` inside a transaction."""
        query = sa.select(sa.func.count()).select_from(jobs).where(*conditions)
        return int(connection.execute(query).scalar_one())

    def count_by_state(self, *conditions: sa.ColumnElement[bool]) -> dict[State, int]:
        """How many of the jobs that meet all conditions are in which state."""
        query = sa.select(jobs.c.state, sa.func.count()).where(*conditions).group_by(jobs.c.state)
        with self.engine.connect() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(query)}

    def held_by(self, owner: str) -> tuple[int, int]:
        """How many open jobs a caller has, and the bytes that its jobs keep."""
        is_open = sa.case((jobs.c.state.in_(OPEN_STATES), 1), else_=0)
        inputs = sa.case((jobs.c.state.in_(OPEN_STATES), jobs.c.input_bytes), else_=0)
        query = sa.select(
            sa.func.coalesce(sa.func.sum(is_open), 0),
            sa.func.coalesce(sa.func.sum(inputs + jobs.c.result_bytes), 0),
        ).where(jobs.c.owner == owner)
        with self.engine.connect() as connection:
            open_jobs, stored = connection.execute(query).one()
        return int(open_jobs), int(stored)

    def ahead_of(self, job: Job) -> int:
        """How many jobs will be begun before a waiting one."""
        priority = PRIORITIES.index(job.priority)
        sooner = sa.or_(
            jobs.c.priority < priority,
            sa.and_(jobs.c.priority == priority, jobs.c.number < job.number),
        )
        return self.count(jobs.c.state == "queued", sooner)

    def mean_seconds(self, last: int) -> float | None:
        """Mean running time of the last jobs that really ran and succeeded; None without any."""
        took = (
            sa.select((jobs.c.ended - jobs.c.started).label("ms"))
            .where(jobs.c.state == "succeeded", jobs.c.cached.is_(False))
            .order_by(jobs.c.number.desc())
            .limit(last)
            .subquery()
        )
        with self.engine.connect() as connection:
            mean = connection.execute(sa.select(sa.func.avg(took.c.ms))).scalar()
        return None if mean is None else float(mean) / 1000

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that waits or runs; whether there was one."""
        with self.engine.begin() as connection:
            return self._change(
                connection,
                jobs.c.id == job_id,
                jobs.c.state.in_(OPEN_STATES),
                state="cancelled",
                ended=self._now,
            )

    def ended_before(self, age_ms: int, limit: int) -> list[Job]:
        """Ended jobs older than an age, the oldest first; not those whose result others share."""
        sharing = jobs.alias("sharing")
        return self.select(
            jobs.c.ended < self._now - age_ms,
            jobs.c.state.not_in(OPEN_STATES),
            ~sa.exists().where(sharing.c.source == jobs.c.id),
            limit=limit,
            newest=False,
        )

    def delete(self, job_ids: Collection[str]) -> None:
        """Forget jobs.

        A job that shares the result of one keeps it and its bytes, and is no known result any more.
        """
        kept_in = sa.func.coalesce(jobs.c.source, jobs.c.id)
        with self.engine.begin() as connection:
            gone = jobs.delete().where(jobs.c.id.in_(job_ids))
            rows = connection.execute(gone.returning(kept_in, jobs.c.result_bytes)).all()
            shares = jobs.c.source.in_([result for result, _ in rows])
            connection.execute(
                jobs.update().where(jobs.c.source.in_(job_ids)).values(cache_key=None)
            )
            heirs = sa.select(jobs.c.source, sa.func.min(jobs.c.number)).where(shares)
            stored = {result: size for result, size in rows if size}
            for result, heir in connection.execute(heirs.group_by(jobs.c.source)).all():
                if result in stored:
                    inherit = jobs.update().where(jobs.c.number == heir)
                    connection.execute(inherit.values(result_bytes=stored[result]))

    def known_results(self, results: Collection[str]) -> set[str]:
        """Of the ids under which results lie, those of which a job speaks."""
        own = sa.select(jobs.c.id).where(jobs.c.id.in_(results))
        shared = sa.select(jobs.c.source).where(jobs.c.source.in_(results))
        with self.engine.connect() as connection:
            return set(connection.execute(own.union(shared)).scalars())

    def oldest_waiting_seconds(self) -> float:
        """Age of the job that has waited longest; 0 where none waits."""
        query = sa.select(self._now - sa.func.min(jobs.c.created)).where(jobs.c.state == "queued")
        with self.engine.connect() as connection:
            age = connection.execute(query).scalar()
        return 0.0 if age is None else max(0.0, float(age) / 1000)

    # workers

    @asked_again
    def claim(self, job_id: str, worker: str) -> Job | None:
        """Begin another attempt: the job, with the attempt's number; None where it has ended."""
        with self.engine.begin() as connection:
            changed = self._change(
                connection,
                jobs.c.id == job_id,
                jobs.c.state.in_(OPEN_STATES),
                state="running",
                attempts=jobs.c.attempts + 1,
                worker=worker,
                started=self._now,
                stage=None,
                done=0,
                total=0,
            )
            if not changed:
                return None
            row = connection.execute(sa.select(*_COLUMNS).where(jobs.c.id == job_id)).mappings()
            return _job(row.one())

    @asked_again
    def is_open(self, job_id: str) -> bool:
        """Whether a job waits or runs."""
        return self.count(jobs.c.id == job_id, jobs.c.state.in_(OPEN_STATES)) > 0

    def still_mine(self, job_id: str, attempt: int) -> bool:
        """Whether an attempt still counts: not cancelled, not claimed again."""
        query = sa.select(jobs.c.id).where(*_attempt(job_id, attempt))
        with self.engine.connect() as connection:
            return connection.execute(query).first() is not None

    def report(self, job_id: str, attempt: int, *, stage: str, done: int, total: int) -> bool:
        """Note progress; whether the attempt still counts."""
        with self.engine.begin() as connection:
            mine = _attempt(job_id, attempt)
            return self._change(connection, *mine, stage=stage, done=done, total=total)

    def complete(
        self,
        job_id: str,
        attempt: int,
        result: Mapping[str, Any],
        result_bytes: int,
        cache_key: str | None = None,
    ) -> bool:
        """End an attempt with its result, and the key that fits it; whether it counted."""
        return self._end(
            job_id,
            attempt,
            state="succeeded",
            done=jobs.c.total,
            result=dict(result),
            result_bytes=result_bytes,
            **({} if cache_key is None else {"cache_key": cache_key}),
        )

    def fail(self, job_id: str, attempt: int, error: Mapping[str, Any]) -> bool:
        """End an attempt with a problem; whether it counted."""
        return self._end(job_id, attempt, state="failed", error=dict(error))

    def hand_back(self, job_id: str, attempt: int) -> bool:
        """Put a job back that was begun and is not to be ended here: no failed attempt."""
        with self.engine.begin() as connection:
            return self._change(
                connection,
                *_attempt(job_id, attempt),
                state="queued",
                handed_back=jobs.c.handed_back + 1,
                worker=None,
                crash=HANDED_BACK,
                stage=None,
                done=0,
                total=0,
            )

    def lost(self, worker: str, cause: str) -> list[str]:
        """Put a dead worker's jobs back, with the cause of its death; their ids."""
        mine = (jobs.c.worker == worker, jobs.c.state == "running")
        with self.engine.begin() as connection:
            ids = list(connection.execute(sa.select(jobs.c.id).where(*mine)).scalars())
            self._change(connection, *mine, state="queued", worker=None, crash=cause[:200])
        for job_id in ids:
            logger.warning("a job goes back to the queue", extra={"job": job_id, "cause": cause})
        return ids

    def bury_early(self, worker: str, cause: str) -> None:
        """Tell that a worker has died, for another one to hand its jobs on at its next beat."""
        self.lost(worker, cause)
        with self.engine.begin() as connection:
            connection.execute(workers.update().where(workers.c.id == worker).values(seen=0))

    @asked_again
    def crash_of(self, job_id: str) -> str | None:
        """What ended a job's last attempt before its time."""
        query = sa.select(jobs.c.crash).where(jobs.c.id == job_id)
        with self.engine.connect() as connection:
            return connection.execute(query).scalar()

    # the workers themselves

    def beat(self, worker: Worker) -> None:
        """Say that a worker is there."""
        values = {
            "device": worker.device,
            "state": worker.state,
            "facts": dict(worker.facts),
            "job": worker.job,
            "seen": self._now,
        }
        with self.engine.begin() as connection:
            known = connection.execute(
                workers.update().where(workers.c.id == worker.id).values(**values)
            )
            if known.rowcount == 0:
                connection.execute(
                    workers.insert().values(id=worker.id, started=self._now, **values)
                )

    def workers(self, *, silent_ms: int | None = None) -> list[Worker]:
        """All workers, or those that have been silent for so long."""
        query = sa.select(workers)
        if silent_ms is not None:
            query = query.where(workers.c.seen < self._now - silent_ms)
        with self.engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        names = ("id", "device", "state", "facts", "job", "seen")
        return [Worker(**{name: row[name] for name in names}) for row in rows]

    def forget_worker(self, worker_id: str) -> None:
        """Remove a worker that has left, or whose jobs have all been handed on."""
        with self.engine.begin() as connection:
            connection.execute(workers.delete().where(workers.c.id == worker_id))

    @asked_again
    def _end(self, job_id: str, attempt: int, *, state: State, **values: Any) -> bool:
        with self.engine.begin() as connection:
            mine = _attempt(job_id, attempt)
            if self._change(connection, *mine, state=state, ended=self._now, **values):
                return True
            # it may have been written by this very call, and the answer lost
            query = sa.select(jobs.c.id).where(
                jobs.c.id == job_id, jobs.c.attempts == attempt, jobs.c.state == state
            )
            return connection.execute(query).first() is not None

    def _change(
        self, connection: sa.Connection, *conditions: sa.ColumnElement[bool], **values: Any
    ) -> bool:
        values["revision"] = jobs.c.revision + 1
        return connection.execute(jobs.update().where(*conditions).values(**values)).rowcount > 0


def _attempt(job_id: str, attempt: int) -> Sequence[sa.ColumnElement[bool]]:
    return jobs.c.id == job_id, jobs.c.attempts == attempt, jobs.c.state == "running"


def _job(row: sa.RowMapping) -> Job:
    return Job(**{**row, "priority": PRIORITIES[row["priority"]]})


def _of_another_version(found: int) -> OptionError:
    return OptionError(
        "SEGMAMBA_JOBS_URL",
        expected=f"job tables of version {SCHEMA_VERSION}",
        got=f"a database whose job tables are of version {found}",
        way_out="Use the release that made them, or an empty database (docs/upgrade.md).",
    )


def _of_another_encoding(found: str) -> OptionError:
    return OptionError(
        "SEGMAMBA_JOBS_URL",
        expected="a PostgreSQL database in UTF8",
        got=f"one in {found}",
        way_out="Make one: CREATE DATABASE segmamba ENCODING 'UTF8' TEMPLATE template0.",
    )


def _not_usable(error: sa.exc.DBAPIError) -> OptionError:
    said = str(error.orig).strip().splitlines()  # a driver names host and user, never the password
    return OptionError(
        "SEGMAMBA_JOBS_URL",
        expected="a job database that can be reached, read and written",
        got=f"an error: {said[0] if said else type(error.orig).__name__}",
        way_out="Start it, or mend its URL or rights (docs/how-to/serve.md).",
    )
