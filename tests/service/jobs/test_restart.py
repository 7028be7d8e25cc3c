"""A PostgreSQL that crashes and comes back under load: no job is lost, and none ends twice."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.jobs.database import UNREACHABLE
from service.jobs.engine import JobEngine
from service.jobs.records import NewJob
from tests.service.jobs.conftest import House, ended, wait_until
from tests.service.jobs.postgres import Cluster

pytestmark = pytest.mark.slow

JOBS = 60
LONG = (20, 21)
"""Two that run, one at each worker, when the database goes, and end while it is away."""
LONG_SECONDS = 2.0


@pytest.fixture
def url(cluster: Cluster) -> str:
    """Of a database on the server that restarts."""
    return cluster.new_database()


@pytest.fixture
def house(url: str, tmp_path: Path) -> Iterator[House]:
    house = House(url, tmp_path)
    yield house
    house.close()


class Sender(threading.Thread):
    """Submits jobs, each again and again under its key until it is there."""

    def __init__(self, engine: JobEngine) -> None:
        super().__init__(daemon=True)
        self.engine, self.ids, self.refused = engine, [], 0

    def run(self) -> None:
        for number in range(JOBS):
            new = NewJob(
                owner="tester",
                spec={"number": number, "seconds": LONG_SECONDS if number in LONG else 0.05},
                idempotency_key=f"key-{number}",
                fingerprint=str(number),
            )
            while len(self.ids) == number:
                try:
                    self.ids.append(self.engine.submit(new).job.id)
                except UNREACHABLE:
                    self.refused += 1
                    time.sleep(0.1)
            time.sleep(0.02 if number < max(LONG) else 0.1)


def long_ones_run(engine: JobEngine, ids: list[str]) -> bool:
    found = [engine.get(ids[number]) for number in LONG if number < len(ids)]
    return len(found) == len(LONG) and all(job and job.state == "running" for job in found)


@pytest.mark.parametrize("away_seconds", [0.0, 4.0], ids=["at once", "past the silence"])
def test_no_job_is_lost_and_none_ends_twice(
    cluster: Cluster, engine: JobEngine, house: House, away_seconds: float
) -> None:
    house.hire()
    house.hire()
    sender = Sender(engine)
    sender.start()
    wait_until(lambda: long_ones_run(engine, sender.ids))
    cluster.stop("immediate")
    assert len(sender.ids) < JOBS, "the load goes on while it is away"
    time.sleep(away_seconds)
    cluster.start()
    sender.join(60)
    assert len(set(sender.ids)) == JOBS
    jobs = ended(engine, *sender.ids, seconds=90)
    assert {job.state for job in jobs} == {"succeeded"}
    assert [job.result and job.result["answer"] for job in jobs] == list(range(JOBS))
    counted = house.events("counted")
    assert set(counted) == set(sender.ids)
    assert set(counted.values()) == {1}
    assert all(process.poll() is None for process in house.processes), "nobody died of it"
    assert engine.count("queued") == engine.count("running") == 0
    assert max(job.attempts for job in jobs) <= 2


def test_a_job_given_to_a_worker_that_never_heard_of_it_is_done(
    engine: JobEngine, house: House
) -> None:
    """As if the connection had broken between the taking of a job and the answer to it."""
    worker = house.hire()
    worker.send_signal(signal.SIGSTOP)
    job = engine.submit(NewJob(owner="tester", spec={"number": 5})).job
    taken = sa.text(
        "UPDATE dbos.workflow_status SET status = 'PENDING', executor_id = :worker "
        "WHERE workflow_uuid = :job"
    )
    with engine.database.begin() as connection:
        changed = connection.execute(taken, {"worker": f"test-{worker.pid}", "job": job.id})
        assert changed.rowcount == 1
    worker.send_signal(signal.SIGCONT)
    (done,) = ended(engine, job.id)
    assert (done.state, done.result) == ("succeeded", {"answer": 5, "attempt": 1})
