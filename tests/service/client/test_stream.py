"""Following a job: nothing is missed and nothing told twice, whatever happens to the stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from starlette.responses import HTMLResponse

from service.client import Client, Job, ServerRefused, ServerUnreachable, WaitTimeoutError
from tests.service.client.conftest import QUICK, Study
from tests.service.client.server import JobServer, problem

EVENTS = ("GET", "/jobs/{id}/events")
LOOKS = ("GET", "/jobs/{id}")


@pytest.fixture
def job(client: Client, study: Study) -> Job:
    return client.submit(study)


def run_through(server: JobServer, job: Job, windows: int = 6) -> list[str]:
    """All states of a job, given at once; what a reader shall see of them."""
    for done in range(windows):
        server.tell(job.id, "running", progress={"stage": "infer", "done": done, "total": windows})
    server.tell(job.id, "succeeded")
    return [seen(Job.model_validate(state)) for state in server.jobs[job.id].states]


def seen(job: Job) -> str:
    return f"{job.state} {job.progress.done}"


@contextmanager
def after_looks(server: JobServer, job: Job) -> Iterator[None]:
    """Let the job succeed as soon as the server was asked for it a few times."""

    def watch() -> None:
        deadline = time.monotonic() + 10
        while server.count(*LOOKS) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        server.tell(job.id, "succeeded")

    with later(0, watch):
        yield


@contextmanager
def later(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_every_state_is_told_in_order(server: JobServer, client: Client, job: Job) -> None:
    expected = run_through(server, job)
    assert [seen(state) for state in client.events(job.id)] == expected
    assert server.count(*EVENTS) == 1
    assert server.count(*LOOKS) == 0


@pytest.mark.parametrize("cut", [1, 2, 4, -1, -2, -4], ids=lambda n: "ended" if n > 0 else "broken")
def test_a_cut_stream_is_taken_up_where_it_was(
    server: JobServer, client: Client, job: Job, cut: int
) -> None:
    expected = run_through(server, job)
    server.cuts.extend([cut] * 20)
    assert [seen(state) for state in client.events(job.id)] == expected
    taken = [int(last or 0) for last in server.resumed_after]
    assert taken == list(range(0, len(expected), abs(cut)))[: len(taken)]
    assert len(taken) >= len(expected) // abs(cut)
    assert server.count(*LOOKS) == 0


def test_events_that_come_twice_are_told_once(server: JobServer, client: Client, job: Job) -> None:
    """Something on the way may drop ``Last-Event-ID``."""
    expected = run_through(server, job)
    server.ignore_last_id = True
    server.cuts.extend([3, 5, -8])
    assert [seen(state) for state in client.events(job.id)] == expected


def test_a_restart_is_survived_and_the_last_state_is_the_jobs(
    server: JobServer, client: Client, job: Job
) -> None:
    def restart() -> None:
        server.tell(job.id, "running")
        server.stop()
        time.sleep(0.15)
        server.tell(job.id, "running", attempts=2)
        server.start()
        server.tell(job.id, "succeeded")

    told: list[Job] = []
    with later(0.1, restart):
        done = client.wait(job.id, on_change=told.append)
    assert done.succeeded
    assert told[-1] == done
    assert [state.attempts for state in told] == [0, 0, 2, 2]
    assert server.resumed_after[0] is None
    assert server.resumed_after[-1] in ("1", "2")


def test_a_server_that_stays_away_is_told_as_such(server: JobServer, study: Study) -> None:
    with Client(server.url, patience=replace(QUICK, outage_s=0.3)) as client:
        job = client.submit(study)
        with later(0.1, server.stop), pytest.raises(ServerUnreachable):
            client.wait(job.id)


def test_streams_that_bring_nothing_are_given_up_for_looking(
    server: JobServer, client: Client, job: Job
) -> None:
    server.cuts.extend([1, *[0] * 50])
    with after_looks(server, job):
        states = [state.state for state in client.events(job.id)]
    assert states == ["queued", "succeeded"]
    assert server.count(*EVENTS) == 4


def test_a_stream_that_is_swallowed_on_the_way_is_given_up_for_looking(
    server: JobServer, client: Client, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a heartbeat comes through."""
    monkeypatch.setattr("service.client.stream.SILENCE_S", 0.1)
    with after_looks(server, job):
        assert client.wait(job.id).succeeded
    assert server.count(*EVENTS) == 1


def test_an_answer_that_is_no_stream_is_given_up_for_looking(
    server: JobServer, client: Client, job: Job
) -> None:
    server.tell(job.id, "succeeded")
    server.fault(*EVENTS, HTMLResponse("a page of the proxy"))
    assert client.wait(job.id).succeeded
    assert (server.count(*EVENTS), server.count(*LOOKS)) == (1, 1)


def test_a_stream_that_is_refused_for_now_is_asked_for_again(
    server: JobServer, client: Client, job: Job
) -> None:
    server.tell(job.id, "succeeded")
    server.fault(*EVENTS, problem(503, "draining", "Later.", headers={"Retry-After": "0"}))
    assert client.wait(job.id).succeeded
    assert server.count(*EVENTS) == 2


@pytest.mark.parametrize("heartbeat_s", [0.02, 60], ids=["heartbeats", "silence"])
def test_waiting_ends_in_time_and_the_job_goes_on(
    server: JobServer, client: Client, job: Job, heartbeat_s: float
) -> None:
    server.heartbeat_s = heartbeat_s
    began = time.monotonic()
    with pytest.raises(WaitTimeoutError, match="goes on") as caught:
        client.wait(job.id, timeout=0.3)
    assert 0.2 < time.monotonic() - began < 2
    assert isinstance(caught.value, TimeoutError)
    assert client.job(job.id).open


def test_a_failed_job_is_an_answer_and_an_unknown_one_a_refusal(
    server: JobServer, client: Client, job: Job
) -> None:
    error = {"type": "urn:segmamba:problem:image", "title": "t", "status": 422, "detail": "Bad."}
    server.tell(job.id, "failed", error=error)
    done = client.wait(job.id)
    assert (done.state, done.error and done.error.detail) == ("failed", "Bad.")
    with pytest.raises(ServerRefused, match="no such job"):
        client.wait("nobody")
