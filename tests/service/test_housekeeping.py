"""What stays when jobs go, and what goes although no job says so any more."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.housekeeping import Housekeeping
from service.jobs.blobs import BlobStore, archive_key
from service.jobs.engine import JobEngine
from service.jobs.records import Job, NewJob

HOURS = 3600.0
SAME = NewJob(owner="a", spec={"upload": "u"}, cache_key="same")


@dataclass
class House:
    """An engine, its files, and who tidies up."""

    engine: JobEngine
    blobs: BlobStore
    keeper: Housekeeping

    def done(self, new: NewJob = SAME) -> Job:
        """A job that has run, with its result."""
        job = self.engine.submit(new).job
        self.engine.store.claim(job.id, "w")
        self.blobs.write(b"labels", archive_key(job.id, 1))
        assert self.engine.store.complete(job.id, 1, {"archive": archive_key(job.id, 1)}, 6)
        return self.present(job)

    def present(self, job: Job) -> Job:
        """The job as it is now."""
        found = self.engine.get(job.id)
        assert found is not None
        return found

    def delete(self, job: Job) -> None:
        """As the API does."""
        self.engine.forget(job)
        self.keeper.forget(job)

    def has_result(self, job: Job) -> bool:
        assert job.result is not None
        return self.blobs.exists(job.result["archive"])


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    engine = JobEngine(f"sqlite:///{tmp_path}/jobs.sqlite")
    blobs = BlobStore(str(tmp_path / "blobs"), tmp_path)
    yield House(engine, blobs, Housekeeping(engine, blobs, keep_seconds=24 * HOURS))
    engine.close()


def test_a_result_that_is_shared_stays_until_the_last_of_its_jobs_goes(house: House) -> None:
    first = house.done()
    second, third = house.engine.submit(SAME).job, house.engine.submit(SAME).job
    assert second.cached
    house.delete(first)
    assert house.engine.get(first.id) is None
    assert house.has_result(second)
    house.delete(second)
    assert house.has_result(third)
    house.delete(third)
    assert not house.has_result(first)


def test_what_is_kept_for_a_caller_is_counted_until_it_goes(house: House) -> None:
    first = house.done()
    second, third = house.engine.submit(SAME).job, house.engine.submit(SAME).job
    for job, left in ((first, 6), (second, 6), (third, 0)):
        house.delete(job)
        assert house.engine.store.held_by("a") == (0, left)


def test_a_job_that_comes_while_a_result_is_swept_is_not_answered_from_it(house: House) -> None:
    house.done()
    time.sleep(0.05)
    came: list[Job] = []

    def forget(job: Job) -> None:
        came.append(house.engine.submit(SAME).job)
        house.keeper.forget(job)

    assert house.engine.sweep(0.0, forget) == 1
    assert [job.state for job in came] == ["queued"]


def test_results_of_which_no_job_speaks_go_after_an_hour(house: House) -> None:
    kept, shared = house.done(), house.done(NewJob(owner="b", spec={}, cache_key="other"))
    house.engine.submit(NewJob(owner="b", spec={}, cache_key="other"))
    house.delete(shared)
    for name in ("left", "young"):
        house.blobs.write(b"labels", archive_key(name, 1))
    results = Path(str(house.blobs.spool)).parent / "results"
    for path in (*results.rglob("*"), results):
        if "young" not in str(path):
            os.utime(path, (time.time() - 2 * HOURS,) * 2)
    house.keeper.tidy(thoroughly=False)
    assert house.blobs.exists("results/left")
    house.keeper.tidy()
    found = {path.name for path in results.iterdir()}
    assert found == {kept.id, shared.id, "young"}


def test_the_first_round_of_the_thread_is_a_thorough_one(house: House) -> None:
    house.blobs.write(b"labels", archive_key("left", 1))
    results = house.blobs.spool.parent / "results"
    for path in results.rglob("*"):
        os.utime(path, (time.time() - 2 * HOURS,) * 2)
    house.keeper.start()
    end = time.monotonic() + 10
    while (results / "left").exists() and time.monotonic() < end:
        time.sleep(0.02)
    house.keeper.stop()
    assert not (results / "left").exists()
