"""The worker's side: take jobs from the queue one at a time, say that it is alive, bury the dead.

Three threads beside the one that computes: the engine's loop that takes jobs; the *beat*, which
writes heartbeat and progress, learns of cancellation, ends a process that hangs, and hands on the
jobs of workers that have fallen silent; and the bell.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final

from dbos import DBOS, DBOSConfig
from dbos._queue import queue_worker_thread

from model_core.errors import Cancelled
from service.jobs import queue
from service.jobs.bell import Bell, listen
from service.jobs.database import UNREACHABLE, open_database
from service.jobs.records import NO_PROGRESS, Job, RetryCause, State, Worker, retry_cause
from service.jobs.store import JobStore

logger = logging.getLogger("service.jobs")

HUNG_EXIT: Final = 75
"""Exit status of a worker that ended itself because its job made no progress."""
_BEAT_SECONDS: Final = 0.25
"""While a job runs: how soon it hears that it was cancelled."""
_ENGINE_STARTS: Final = 1000
"""The engine's own cap on attempts, out of the way of ours."""


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions:
    """How a worker behaves; seconds throughout.

    Args:
        beat: between two signs of life of an idle worker.
        silence: after which a worker is taken for dead; at least six beats.
        hang: without progress after which a job's process ends itself.
        attempts: how often a job is begun before it fails.
        poll: between two looks into the queue when no bell rings.
    """

    beat: float = 2.0
    silence: float = 20.0
    hang: float = 600.0
    attempts: int = 3
    poll: float = 5.0


class Attempt:
    """One running attempt, as the code that does the work sees it.

    Args:
        job: with the number of this attempt.
        retry: what ended the one before it, if there was one.
    """

    def __init__(self, job: Job, retry: RetryCause | None = None) -> None:
        self.job, self.retry = job, retry
        self.number = job.attempts
        self._lost = threading.Event()
        self.stage, self.done, self.total = "read", 0, 0
        self.moved = time.monotonic()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Note how far the work is; free of cost."""
        self.stage, self.done, self.total = stage, done, total
        self.moved = time.monotonic()

    def cancelled(self) -> bool:
        """Whether the work has become pointless: cancelled, or given to another worker."""
        return self._lost.is_set()

    def give_up(self) -> None:
        """Make the work stop at its next window."""
        self._lost.set()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an attempt leaves: the result, plain JSON, and the bytes that it takes in storage.

    Args:
        result: for the callers.
        stored_bytes: of it.
        cache_key: under which it is known from now on; None: as the job was submitted.
    """

    result: Mapping[str, Any]
    stored_bytes: int = 0
    cache_key: str | None = None


class JobFailedError(Exception):
    """The job cannot be done, now or later; carries the problem as plain JSON."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(problem.get("title"))
        self.problem = problem


Work = Callable[[Attempt], Outcome]
"""Does one attempt. Raises `JobFailedError`, or `Cancelled` where the attempt says so."""


class Executor:
    """Takes jobs and does them, in this process; one of it per process.

    Args:
        url: the job database.
        work: does one attempt, on a thread of the engine's.
        worker_id: unique for every start of a process.
        device: what it computes on.
        options: see `ExecutorOptions`.
        ended: told of every job that has ended here, with its last state, after its row says so.
        dropped: told of a result that came too late: its job was cancelled, or given to another.
        facts: asked at every beat; what others may know of this worker.
        hung: called before the process ends itself because its job makes no progress.
    """

    def __init__(  # noqa: PLR0913 - one process, and who is told what of it
        self,
        url: str,
        work: Work,
        *,
        worker_id: str,
        device: str = "cpu",
        options: ExecutorOptions | None = None,
        facts: Callable[[], Mapping[str, Any]] = dict,
        ended: Callable[[Job], None] = lambda _: None,
        dropped: Callable[[Outcome], None] = lambda _: None,
        hung: Callable[[], None] = lambda: None,
    ) -> None:
        self.id, self.device, self.options = worker_id, device, options or ExecutorOptions()
        self._url, self._work, self._facts = url, work, facts
        self._tell_ended, self._tell_dropped, self._tell_hung = ended, dropped, hung
        self._engine = open_database(url)
        self.store = JobStore(self._engine)
        self._running: Attempt | None = None
        self._unheard: set[str] = set()
        self._looked = time.monotonic()
        self._draining = False
        self._left = threading.Event()
        self._bell = Bell(self._busy)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Take jobs from now on; the model should be warm."""
        self.store.create_tables()
        self._launch()
        self.store.beat(self._said())
        taken_from = DBOS.retrieve_queue(queue.QUEUE)
        instance = _instance()
        self._threads = [
            threading.Thread(
                target=queue_worker_thread,
                args=(self._bell, instance, taken_from),
                name="take",
                daemon=True,
            ),
            threading.Thread(target=self._beat, name="beat", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        listen(self._engine, self._bell)

    @property
    def running(self) -> Attempt | None:
        """The attempt that runs now."""
        return self._running

    def tell(self) -> None:
        """Say now what the next beat would say."""
        self.store.beat(self._said())

    def drain(self, grace: float) -> bool:
        """Take no more jobs, and let the running one end; past the grace time it is handed back.

        Returns:
            whether it ended by itself.
        """
        self._draining = True
        self._bell.set()
        with suppress(*UNREACHABLE):  # its silence will tell
            self.store.beat(self._said())
        end = time.monotonic() + grace
        while _active() and time.monotonic() < end:  # until the engine has heard of the end too
            time.sleep(0.05)
        attempt = self._running
        if attempt is not None:
            self.store.hand_back(attempt.job.id, attempt.number)
            attempt.give_up()
            _recover([self.id])
        return attempt is None

    def close(self) -> None:
        """Leave: after `drain`, or the running job waits until this worker is missed.

        A thread of the engine may still wait for what became of a job that was handed back; a
        process that means to end must do so with `os._exit`.
        """
        self._draining = True
        self._bell.set()
        self._left.set()
        for thread in self._threads:
            thread.join(5)
        if not self._taken():
            self.store.forget_worker(self.id)
        DBOS.destroy(destroy_registry=True)
        self._engine.dispose()

    def _launch(self) -> None:
        queue.hear_the_engine()
        config: DBOSConfig = {
            "name": queue.APPLICATION,
            "system_database_url": self._url,
            "executor_id": self.id,
            "application_version": queue.APPLICATION_VERSION,
            "dbos_system_schema": queue.SCHEMA,
            "serializer": queue.JsonSerializer(),
            "log_level": "WARNING",
            "enable_otlp": False,
        }
        DBOS(config=config)
        DBOS.workflow(name=queue.WORKFLOW, max_recovery_attempts=_ENGINE_STARTS)(
            lambda job_id: self._attempt(job_id)  # the engine marks it, and a method takes no mark
        )
        DBOS.listen_queues([])  # this class runs the loop, with its bell
        DBOS.launch()
        DBOS.register_queue(
            queue.QUEUE, worker_concurrency=1, polling_interval_sec=self.options.poll
        )

    def _attempt(self, job_id: str) -> None:
        """What the engine calls for a job that this worker has taken."""
        claimed = self.store.claim(job_id, self.id)
        if claimed is None:  # cancelled, or done before a crash kept the engine from hearing of it
            return
        again = claimed.attempts > 1
        attempt = Attempt(claimed, retry_cause(self.store.crash_of(job_id)) if again else None)
        self._running = attempt
        try:
            if (state := self._do(attempt)) is None:
                Context().run(self._let_go, job_id)  # outside the engine's: it is no step of its
            else:
                self._tell_ended(replace(claimed, state=state))
        finally:
            if self._running is attempt:
                self._running = None
            self._bell.ring()

    def _let_go(self, job_id: str) -> None:
        """Make sure that a job which goes on elsewhere is in the engine's queue.

        If the engine took it for this worker's still, it would take the end of the attempt for its
        end, and nobody would be given it again.
        """
        if self.store.is_open(job_id) and job_id in self._taken():
            _recover([self.id])

    def _do(self, attempt: Attempt) -> State | None:
        """Do the work and write down its end; the job's last state, None where it goes on."""
        job, number = attempt.job, attempt.number
        if job.attempts - job.handed_back > self.options.attempts:
            return self._fail(attempt, self._worn_out(job))
        try:
            outcome = self._work(attempt)
        except Cancelled:  # its row says so already, unless it was handed on
            return None if self.store.is_open(job.id) else "cancelled"
        except JobFailedError as failure:
            return self._fail(attempt, failure.problem)
        counted = self.store.complete(
            job.id, number, outcome.result, outcome.stored_bytes, outcome.cache_key
        )
        if not counted:
            self._tell_dropped(outcome)
        return "succeeded" if counted else None

    def _fail(self, attempt: Attempt, problem: Mapping[str, Any]) -> State | None:
        return "failed" if self.store.fail(attempt.job.id, attempt.number, problem) else None

    def _worn_out(self, job: Job) -> dict[str, Any]:
        crash = self.store.crash_of(job.id) or "unknown"
        return {
            "type": "urn:segmamba:problem:worker-lost",
            "title": "The worker was lost with this job, again and again",
            "status": 500,
            "detail": f"{self.options.attempts} attempts; the last one ended with: {crash}.",
        }

    def _beat(self) -> None:
        """Until the worker leaves: heartbeat, progress, cancellation, hangs, the dead."""
        beaten, away = 0.0, -inf
        told: tuple[object, ...] = ()
        while not self._left.wait(_BEAT_SECONDS):
            began = time.monotonic()
            try:
                told = self._follow(told)
                if began - beaten >= self.options.beat:
                    self.store.beat(self._said())
                    self._find_dropped()
                    if time.monotonic() - began > self.options.beat:  # a cable out: a mere wait
                        away = time.monotonic()
                    if time.monotonic() - away > self.options.silence:  # else all are silent
                        self._bury()
                    beaten = time.monotonic()
            except Exception as error:  # noqa: BLE001 - the database restarts: it will be back
                away = time.monotonic()
                logger.warning("no heartbeat", extra={"exception": type(error).__name__})

    def _follow(self, told: tuple[object, ...]) -> tuple[object, ...]:
        """Watch the running attempt; what was written of it, so that news only is written."""
        attempt = self._running
        if attempt is None:
            return ()
        if time.monotonic() - attempt.moved > self.options.hang:
            self._end_hung(attempt.job.id)
        job_id, number = attempt.job.id, attempt.number
        now = (job_id, number, attempt.stage, attempt.done, attempt.total)
        if now == told:
            mine = self.store.still_mine(job_id, number)
        else:
            mine = self.store.report(
                job_id, number, stage=attempt.stage, done=attempt.done, total=attempt.total
            )
        if not mine:
            attempt.give_up()
        return now

    def _end_hung(self, job_id: str) -> None:
        """Hand the job on and end this process: the thread that hangs cannot be ended alone."""
        logger.error("a job makes no progress: this worker ends itself", extra={"job": job_id})
        try:
            self._bell.set()
            self.store.lost(self.id, f"{NO_PROGRESS} for {self.options.hang:g} s")
            _recover([self.id])
            self._tell_hung()
        finally:
            os._exit(HUNG_EXIT)

    def _find_dropped(self) -> None:
        """Put back what the engine has given to this worker without its ever hearing of it.

        The connection broke in between. Seen twice while nothing runs, it is not on its way here.
        """
        if time.monotonic() - self._looked < self.options.silence:
            return
        self._looked = time.monotonic()
        taken, active = self._taken(), _active()
        unheard = taken.difference(active)
        if unheard & self._unheard and not active:
            _recover([self.id])
        self._unheard = unheard

    def _bury(self) -> None:
        """Hand on the jobs of workers that have fallen silent.

        A dead worker's row stays until the engine knows of none of its jobs, so that a database
        that fails in between leaves nothing behind.
        """
        for worker in self.store.workers(silent_ms=int(self.options.silence * 1000)):
            if worker.id != self.id:
                bury(self.store, worker.id, "no sign of life")

    def _said(self) -> Worker:
        running = self._running
        return Worker(
            id=self.id,
            device=self.device,
            state="draining" if self._draining else "ready",
            facts=self._facts(),
            job=None if running is None else running.job.id,
            seen=0,
        )

    def _busy(self) -> bool:
        """Whether a job runs here, or has been taken and is about to."""
        return bool(_active() or self._taken())

    def _taken(self) -> set[str]:
        """Jobs that the engine has given to this worker, and of whose end it has not heard."""
        found = DBOS.list_workflows(status="PENDING", executor_id=self.id, load_input=False)
        return {workflow.workflow_id for workflow in found}


def bury(store: JobStore, worker_id: str, cause: str) -> None:
    """Hand a dead worker's jobs on; in a process where an `Executor` runs."""
    store.lost(worker_id, cause)
    _recover([worker_id])
    if not DBOS.list_workflows(status="PENDING", executor_id=worker_id, load_input=False):
        store.forget_worker(worker_id)


def _recover(worker_ids: list[str]) -> None:
    """Put what these workers had taken back into the engine's queue; not public, see `queue`."""
    DBOS._recover_pending_workflows(worker_ids)


def _active() -> list[str]:
    """Jobs that the engine runs in this process; not public, see `queue`."""
    running: list[str] = _instance()._active_workflows_set.activeList()
    return running


def _instance() -> Any:
    from dbos._dbos import _get_dbos_instance

    return _get_dbos_instance()
