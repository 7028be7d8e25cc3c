"""The worker runs one job at a time, bounds what waits, and outlives every job."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from model_core.errors import Cancelled
from service.errors import QueueFullError, ShuttingDownError
from service.worker import InferenceWorker
from tests.service.fakes import wait_until


@pytest.fixture
def worker() -> Iterator[InferenceWorker]:
    worker = InferenceWorker(queue_size=1)
    worker.start()
    yield worker
    assert worker.close(10)


class Blocker:
    """Work that runs until it is released or cancelled."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.release = threading.Event()

    def __call__(self, cancelled: Callable[[], bool]) -> str:
        self.started.set()
        while not self.release.wait(0.005):
            if cancelled():
                raise Cancelled("stopped")
        return "done"


def test_a_job_answers_through_its_future(worker: InferenceWorker) -> None:
    with worker.admit() as ticket:
        job = ticket.submit(lambda _cancelled: 42)
    assert job.future.result(5) == 42
    assert 0 <= job.waited_seconds < 5


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), SystemExit(3), GeneratorExit()])
def test_a_failing_job_ends_its_request_and_not_the_thread(
    worker: InferenceWorker, error: BaseException
) -> None:
    def fail(_cancelled: object) -> None:
        raise error

    for _ in range(3):  # more often than there are places: each one was given back
        with worker.admit() as ticket:
            failed = ticket.submit(fail).future.exception(5)
        expected = type(error) if isinstance(error, Exception) else RuntimeError
        assert type(failed) is expected
        wait_until(lambda: not worker.busy)
    with worker.admit() as ticket:
        assert ticket.submit(lambda _: "alive").future.result(5) == "alive"


def test_places_are_one_running_and_queue_size_waiting(worker: InferenceWorker) -> None:
    first, second = Blocker(), Blocker()
    with worker.admit() as ticket:
        job = ticket.submit(first)
    first.started.wait(5)
    with worker.admit() as ticket:
        ticket.submit(second)
    assert worker.depth == 1
    with pytest.raises(QueueFullError) as refused:
        worker.admit()
    assert 1 <= refused.value.retry_after <= 600
    first.release.set()
    second.release.set()
    assert job.future.result(5) == "done"
    wait_until(lambda: not worker.busy and worker.depth == 0)
    with worker.admit():
        pass


def test_a_place_without_a_job_is_given_back(worker: InferenceWorker) -> None:
    for _ in range(5):
        with pytest.raises(KeyError), worker.admit():
            raise KeyError
    with worker.admit(), worker.admit(), pytest.raises(QueueFullError):
        worker.admit()


def test_cancel_stops_a_running_job_and_skips_a_waiting_one(worker: InferenceWorker) -> None:
    running, ran = Blocker(), threading.Event()
    with worker.admit() as ticket:
        first = ticket.submit(running)
    running.started.wait(5)
    with worker.admit() as ticket:
        second = ticket.submit(lambda _: ran.set())
    second.cancel()
    first.cancel()
    assert isinstance(first.future.exception(5), Cancelled)
    assert isinstance(second.future.exception(5), Cancelled)
    assert not ran.is_set()


def test_draining_refuses_what_waits_and_finishes_what_runs(worker: InferenceWorker) -> None:
    running = Blocker()
    with worker.admit() as ticket:
        first = ticket.submit(running)
    running.started.wait(5)
    with worker.admit() as ticket:
        second = ticket.submit(lambda _: None)
    worker.drain()
    assert isinstance(second.future.exception(5), ShuttingDownError)
    with pytest.raises(ShuttingDownError):
        worker.admit()
    running.release.set()
    assert first.future.result(5) == "done"


def test_an_admitted_upload_is_refused_once_draining_began(worker: InferenceWorker) -> None:
    with worker.admit() as ticket:
        worker.drain()
        with pytest.raises(ShuttingDownError):
            ticket.submit(lambda _: None)


def test_closing_cancels_the_running_job(worker: InferenceWorker) -> None:
    running = Blocker()
    with worker.admit() as ticket:
        job = ticket.submit(running)
    running.started.wait(5)
    assert worker.close(10)
    assert isinstance(job.future.exception(0), Cancelled)


def test_a_job_given_up_by_its_future_does_not_end_the_thread(worker: InferenceWorker) -> None:
    running = Blocker()
    with worker.admit() as ticket:
        ticket.submit(running)
    running.started.wait(5)
    with worker.admit() as ticket:
        assert ticket.submit(lambda _: None).future.cancel()
    running.release.set()
    wait_until(lambda: not worker.busy and worker.depth == 0)
    with worker.admit() as ticket:
        assert ticket.submit(lambda _: "alive").future.result(5) == "alive"


def test_retry_after_follows_the_time_that_jobs_take(worker: InferenceWorker) -> None:
    before = worker.retry_after()
    for _ in range(20):
        with worker.admit() as ticket:
            ticket.submit(lambda _: None).future.result(5)
        wait_until(lambda: not worker.busy)
    assert worker.retry_after() == 1 < before
