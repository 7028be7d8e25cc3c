"""One thread that runs one inference at a time, behind a bounded queue.

The event loop never computes: a request is *admitted* before its body is read (or refused at
once), *submitted* when its study is ready, and awaited. One counter bounds everything that holds
memory: admitted = uploading + waiting + running ≤ ``queue_size`` + 1. A job that fails, in
whatever way, ends its own request and never the thread.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from model_core.errors import Cancelled
from model_core.types import CancelCheck
from service.errors import QueueFullError, ShuttingDownError

logger = logging.getLogger("service.worker")

Result = TypeVar("Result")
_UNKNOWN_JOB_SECONDS: Final = 30.0
_SMOOTHING: Final = 0.3  # weight of the newest job in the moving average behind Retry-After
_LONGEST_RETRY: Final = 600


class Job(Generic[Result]):
    """One piece of work: its future, its cancel flag, and how long it waited."""

    def __init__(self, work: Callable[[CancelCheck], Result]) -> None:
        self.work = work
        self.future: Future[Result] = Future()
        self.waited_seconds = 0.0
        self._cancel = threading.Event()
        self._submitted = time.perf_counter()

    def cancel(self) -> None:
        """Ask the job to stop: at once if it still waits, else at its next window."""
        self._cancel.set()

    def cancelled(self) -> bool:
        """Whether someone asked the job to stop."""
        return self._cancel.is_set()

    def refuse(self, error: Exception) -> None:
        """End the job before it began."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def run(self) -> None:
        """Do the work on the calling thread; the outcome, whatever it is, goes to the future."""
        self.waited_seconds = time.perf_counter() - self._submitted
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            if self.cancelled():
                raise Cancelled("The job was cancelled while it waited.")
            self.future.set_result(self.work(self.cancelled))
        except Exception as error:  # noqa: BLE001 - the future carries it to the request
            self.future.set_exception(error)
        except BaseException as error:  # noqa: BLE001 - a SystemExit would end the event loop
            self.future.set_exception(RuntimeError(f"the job raised {type(error).__name__}"))


class Ticket:
    """The right to submit one job; given back when the job ends, or on leaving without one."""

    def __init__(self, worker: InferenceWorker) -> None:
        self._worker = worker
        self._submitted = False

    def submit(self, work: Callable[[CancelCheck], Result]) -> Job[Result]:
        """Put the work into the queue. A ticket is good for one job."""
        assert not self._submitted
        job = Job(work)
        self._worker._enqueue(job)
        self._submitted = True
        return job

    def __enter__(self) -> Ticket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._submitted:
            self._worker._give_back()


class InferenceWorker:
    """A bounded queue and the thread that empties it.

    Args:
        queue_size: how many admitted requests may be behind the running one.
    """

    def __init__(self, queue_size: int) -> None:
        self._capacity = queue_size + 1
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._admitted = 0
        self._running: Job[Any] | None = None
        self._draining = False
        self._mean_seconds = _UNKNOWN_JOB_SECONDS
        self._thread = threading.Thread(target=self._loop, name="inference", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def depth(self) -> int:
        """Jobs that wait, the running one not counted."""
        return self._jobs.qsize()

    @property
    def busy(self) -> bool:
        """Whether a job runs now."""
        return self._running is not None

    @property
    def draining(self) -> bool:
        """Whether the worker takes no more work."""
        return self._draining

    def admit(self) -> Ticket:
        """Take a place in the queue, to be left by the ticket's context or by its job's end.

        Raises:
            QueueFullError: every place is taken.
            ShuttingDownError: the process is going away.
        """
        with self._lock:
            if self._draining:
                raise _shutting_down()
            if self._admitted >= self._capacity:
                raise QueueFullError(
                    f"All {self._capacity} places are taken. Try again later.",
                    retry_after=self.retry_after(),
                )
            self._admitted += 1
        return Ticket(self)

    def post(self, work: Callable[[CancelCheck], Result]) -> Job[Result]:
        """Queue the service's own work, which needs no admission (loading, warm-up)."""
        job = Job(work)
        job.future.add_done_callback(_log_failure)
        with self._lock:
            self._admitted += 1
        self._enqueue(job)
        return job

    def retry_after(self) -> int:
        """Whole seconds until a place is likely free: the recent mean time of a job."""
        return max(1, min(_LONGEST_RETRY, math.ceil(self._mean_seconds)))

    def drain(self) -> None:
        """Take no more work and refuse what still waits; the running job goes on."""
        with self._lock:
            self._draining = True
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is not None:
                job.refuse(_shutting_down())
                self._give_back()

    def cancel_running(self) -> None:
        """Ask the running job to stop at its next window."""
        running = self._running
        if running is not None:
            running.cancel()

    def close(self, timeout: float) -> bool:
        """Drain, cancel, and wait up to ``timeout`` seconds; tells whether the thread ended.

        A thread inside one long kernel cannot be interrupted; it is a daemon, so the process may
        leave without it.
        """
        self.drain()
        self.cancel_running()
        self._jobs.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _enqueue(self, job: Job[Any]) -> None:
        with self._lock:
            if self._draining:
                raise _shutting_down()
            self._jobs.put(job)

    def _give_back(self) -> None:
        with self._lock:
            self._admitted -= 1

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._running = job
            started = time.perf_counter()
            job.run()
            self._running = None
            if not job.future.cancelled() and job.future.exception() is None:
                self._learn(time.perf_counter() - started)
            self._give_back()
            # The next wait must not keep the last study alive.
            del job

    def _learn(self, seconds: float) -> None:
        self._mean_seconds += _SMOOTHING * (seconds - self._mean_seconds)


def _log_failure(future: Future[Any]) -> None:
    error = None if future.cancelled() else future.exception()
    if error is not None:
        logger.error("background work failed", extra={"exception": type(error).__name__})


def _shutting_down() -> ShuttingDownError:
    return ShuttingDownError("The service is shutting down. Try again shortly.", retry_after=5)
