"""What the engine promises, on both kinds of database, with real processes that really die.

Three of these bind what is not public in the engine: a dead worker's jobs are run by another one,
one round of the taking loop follows the bell, and a worker that was thought dead changes nothing.
"""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import pytest

from service.jobs.engine import FullQueueError, JobEngine, ReusedKeyError
from service.jobs.records import Job, NewJob
from service.jobs.tables import workers
from tests.service.jobs.conftest import House, ended, wait_until


def new(number: int = 0, **spec: object) -> NewJob:
    return NewJob(owner="tester", spec={"number": number, **spec})


def submit(engine: JobEngine, number: int = 0, **spec: object) -> str:
    return engine.submit(new(number, **spec)).job.id


def running(engine: JobEngine, job_id: str) -> bool:
    job = engine.get(job_id)
    return job is not None and job.state == "running" and job.done > 0


def test_a_job_is_done_and_its_result_kept(engine: JobEngine, house: House) -> None:
    house.hire()
    (job,) = ended(engine, submit(engine, 7))
    assert (job.state, job.result, job.attempts) == ("succeeded", {"answer": 7, "attempt": 1}, 1)
    assert job.started is not None
    assert job.ended is not None
    assert job.created <= job.started <= job.ended


def test_a_problem_ends_a_job_at_once(engine: JobEngine, house: House) -> None:
    house.hire()
    (job,) = ended(engine, submit(engine, fails=True))
    assert (job.state, job.error, job.attempts) == ("failed", {"title": "No", "status": 422}, 1)


def test_no_job_is_lost_and_none_done_twice(engine: JobEngine, house: House) -> None:
    house.hire()
    house.hire()
    ids = [submit(engine, number, seconds=0.02) for number in range(60)]
    jobs = ended(engine, *ids)
    assert [job.result and job.result["answer"] for job in jobs] == list(range(60))
    assert set(house.events("ended").values()) == {1}
    assert len(house.events("ended")) == 60


def test_a_worker_does_one_job_at_a_time(engine: JobEngine, house: House) -> None:
    house.hire()
    ids = [submit(engine, number, seconds=0.05, windows=1) for number in range(40)]
    ended(engine, *ids)
    steps = house.steps("began", "ended")
    assert steps == [step for job_id in ids for step in (("began", job_id), ("ended", job_id))]


def test_a_killed_workers_job_is_done_by_another(engine: JobEngine, house: House) -> None:
    house.hire()
    house.hire()
    job_id = submit(engine, seconds=2.0)
    wait_until(lambda: running(engine, job_id))
    house.worker_of(job_id).kill()
    (job,) = ended(engine, job_id)
    assert (job.state, job.attempts, job.result) == ("succeeded", 2, {"answer": 0, "attempt": 2})


def test_all_workers_killed_and_new_ones_hired_lose_nothing(
    engine: JobEngine, house: House
) -> None:
    workers = [house.hire(), house.hire()]
    ids = [submit(engine, number, seconds=0.5) for number in range(8)]
    wait_until(lambda: len(house.events("began")) >= 2)
    for worker in workers:
        worker.kill()
    house.hire()
    jobs = ended(engine, *ids)
    assert {job.state for job in jobs} == {"succeeded"}
    assert set(house.events("ended").values()) == {1}


def test_a_worker_that_was_thought_dead_changes_nothing(engine: JobEngine, house: House) -> None:
    house.hire()
    job_id = submit(engine, seconds=1.0)
    wait_until(lambda: running(engine, job_id))
    sleeper = house.worker_of(job_id)
    sleeper.send_signal(signal.SIGSTOP)
    house.hire()
    wait_until(lambda: house.events("began")[job_id] == 2)
    sleeper.send_signal(signal.SIGCONT)
    (job,) = ended(engine, job_id)
    assert job.result == {"answer": 0, "attempt": 2}
    wait_until(lambda: house.events("ended")[job_id] + house.events("stopped")[job_id] == 2)
    assert engine.get(job_id) == job, "the first attempt's end was not taken"
    again = submit(engine, 5)
    (second,) = ended(engine, again)
    assert second.state == "succeeded", "the sleeper is of use again"


def test_who_had_to_wait_for_the_database_calls_nobody_dead(
    engine: JobEngine, house: House
) -> None:
    if engine.database.dialect.name == "sqlite":
        pytest.skip("SQLite has one lock, which holds up everybody for the same time")
    for _ in range(3):
        house.hire()
    job_id = submit(engine, seconds=7.0)
    wait_until(lambda: running(engine, job_id))
    busy = workers.c.id == f"test-{house.worker_of(job_id).pid}"
    held = workers.update().values(device=workers.c.device)
    with engine.database.begin() as longer:
        longer.execute(held.where(busy))
        with engine.database.begin() as shorter:
            shorter.execute(held.where(~busy))
            time.sleep(3.5)  # longer than anybody may be silent, and no heartbeat fails: all wait
        time.sleep(1.0)
    (job,) = ended(engine, job_id)
    assert (job.state, job.attempts) == ("succeeded", 1)
    assert house.events("began")[job_id] == 1


def test_a_job_that_kills_its_workers_fails_with_the_cause(engine: JobEngine, house: House) -> None:
    job_id = submit(engine, dies=True)
    for _ in range(2):
        worker = house.hire(attempts=2, silence=1.0)
        wait_until(lambda worker=worker: worker.poll() is not None)
    house.hire(attempts=2, silence=1.0)
    (job,) = ended(engine, job_id)
    assert job.state == "failed"
    assert house.events("began")[job_id] == 2
    assert job.error is not None
    assert job.error["type"] == "urn:segmamba:problem:worker-lost"
    assert "no sign of life" in job.error["detail"]


def test_a_worker_that_hangs_ends_itself(engine: JobEngine, house: House) -> None:
    worker = house.hire(hang=1.0)
    job_id = submit(engine, hangs=True)
    assert worker.wait(20) == 75
    job = engine.get(job_id)
    assert job is not None
    assert job.state == "queued"


def test_a_running_job_stops_when_it_is_cancelled(engine: JobEngine, house: House) -> None:
    house.hire()
    job_id = submit(engine, seconds=20.0, windows=200)
    wait_until(lambda: running(engine, job_id))
    began = time.monotonic()
    assert engine.cancel(job_id)
    wait_until(lambda: house.events("stopped")[job_id] == 1)
    assert time.monotonic() - began < 5
    (after,) = ended(engine, submit(engine, 1))
    assert after.state == "succeeded", "the worker is free again"
    job = engine.get(job_id)
    assert job is not None
    assert (job.state, job.result) == ("cancelled", None)
    assert not engine.cancel(job_id)


def test_a_result_that_comes_after_the_cancellation_is_dropped(
    engine: JobEngine, house: House
) -> None:
    house.hire()
    job_id = submit(engine, 7, seconds=1.0, deaf=True)
    wait_until(lambda: running(engine, job_id))
    assert engine.cancel(job_id)
    wait_until(lambda: house.events("dropped")["7"] == 1)
    job = engine.get(job_id)
    assert job is not None
    assert (job.state, job.result) == ("cancelled", None)


def test_a_waiting_job_that_is_cancelled_never_begins(engine: JobEngine, house: House) -> None:
    job_id, other = submit(engine), submit(engine)
    assert engine.cancel(job_id)
    house.hire()
    ended(engine, other)
    assert house.events("began")[job_id] == 0


def test_what_is_urgent_goes_first_and_the_rest_in_order(engine: JobEngine, house: House) -> None:
    low = [engine.submit(NewJob(owner="t", spec={}, priority="low")).job for _ in range(3)]
    usual = [engine.submit(NewJob(owner="t", spec={})).job for _ in range(3)]
    high = engine.submit(NewJob(owner="t", spec={}, priority="high")).job
    assert [engine.position(job) for job in (high, *usual, *low)] == list(range(1, 8))
    house.hire()
    ended(engine, *(job.id for job in (*low, *usual, high)))
    assert list(house.events("began")) == [job.id for job in (high, *usual, *low)]


def test_a_worker_that_is_asked_to_leave_finishes_first(engine: JobEngine, house: House) -> None:
    worker = house.hire(grace=10)
    first, second = submit(engine, seconds=3.0), submit(engine)
    wait_until(lambda: running(engine, first))
    worker.terminate()
    assert worker.wait(15) == 0
    done, waits = engine.get(first), engine.get(second)
    assert done is not None
    assert done.state == "succeeded"
    assert waits is not None
    assert waits.state == "queued", "it took nothing more"
    assert not engine.workers(), "it is gone, not silent"


def test_past_the_grace_time_a_job_is_handed_back_unharmed(engine: JobEngine, house: House) -> None:
    worker = house.hire(grace=0.2)
    job_id = submit(engine, seconds=3.0, windows=30)
    wait_until(lambda: running(engine, job_id))
    worker.terminate()
    assert worker.wait(15) == 0
    house.hire()
    (job,) = ended(engine, job_id)
    assert (job.state, job.attempts, job.handed_back) == ("succeeded", 2, 1)


def test_an_idle_worker_hears_of_a_job_at_once(engine: JobEngine, house: House) -> None:
    house.hire(poll=30.0)
    ended(engine, submit(engine))
    time.sleep(1.5)  # past the restless moment after a job
    (job,) = ended(engine, submit(engine, seconds=0.0), seconds=10)
    assert job.state == "succeeded", "without the bell it would have waited half a minute"


def test_progress_is_told_while_a_job_runs(engine: JobEngine, house: House) -> None:
    house.hire()
    job_id = submit(engine, seconds=2.0, windows=8)
    seen = set()

    def watched() -> bool:
        job = engine.get(job_id)
        assert job is not None
        seen.add((job.stage, job.done, job.total, job.revision))
        return not job.open

    wait_until(watched)
    told = sorted({done for stage, done, total, _ in seen if stage == "infer" and total == 8})
    assert len(told) >= 3
    revisions = [revision for *_, revision in sorted(seen, key=lambda entry: entry[3])]
    assert len(set(revisions)) == len(seen), "every change has a revision of its own"


def test_the_same_key_is_the_same_job(engine: JobEngine) -> None:
    ask = NewJob(owner="a", spec={}, idempotency_key="k", fingerprint="f")
    first = engine.submit(ask)
    again = engine.submit(ask)
    assert (first.is_new, again.is_new) == (True, False)
    assert first.job.id == again.job.id
    other = engine.submit(NewJob(owner="b", spec={}, idempotency_key="k", fingerprint="f"))
    assert other.job.id != first.job.id, "another caller's keys are another's"
    with pytest.raises(ReusedKeyError):
        engine.submit(NewJob(owner="a", spec={}, idempotency_key="k", fingerprint="g"))


def test_a_known_result_answers_at_once(engine: JobEngine, house: House) -> None:
    house.hire()
    ask = NewJob(owner="a", spec={"number": 3}, cache_key="same")
    (first,) = ended(engine, engine.submit(ask).job.id)
    second = engine.submit(ask).job
    assert (second.state, second.cached, second.result) == ("succeeded", True, first.result)
    assert second.id != first.id
    assert engine.submit(NewJob(owner="b", spec={"number": 3}, cache_key="same")).job.open
    assert engine.submit(NewJob(owner="a", spec={"number": 3})).job.open


def test_a_deleted_result_is_known_no_more(engine: JobEngine, house: House) -> None:
    house.hire()
    ask = NewJob(owner="a", spec={"number": 3}, cache_key="same")
    (first,) = ended(engine, engine.submit(ask).job.id)
    assert engine.submit(ask).job.cached
    engine.forget(first)
    assert not engine.submit(ask).job.cached


def done(engine: JobEngine, ask: NewJob) -> Job:
    """A job that has ended with six bytes of result, without a worker."""
    job = engine.submit(ask).job
    engine.store.claim(job.id, "w")
    assert engine.store.complete(job.id, 1, {}, 6)
    return engine.get(job.id) or job


def test_a_shared_result_goes_with_the_last_of_its_jobs(engine: JobEngine) -> None:
    ask = NewJob(owner="a", spec={}, cache_key="same")
    first = done(engine, ask)
    sharing = [engine.submit(ask).job for _ in range(2)]
    assert engine.orphans([first.id, "never"]) == {"never"}
    for job, bytes_left in zip((first, *sharing), (6, 6, 0), strict=True):
        assert engine.orphans([first.id]) == set()
        engine.forget(job)
        assert engine.get(job.id) is None
        assert engine.store.held_by("a") == (0, bytes_left)
    assert engine.orphans([first.id]) == {first.id}


def test_a_result_is_not_deleted_while_a_job_is_answered_from_it(
    engine: JobEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = NewJob(owner="a", spec={}, cache_key="same")
    first = done(engine, ask)
    orphans: list[set[str]] = []

    def delete() -> None:
        engine.forget(first)
        orphans.append(engine.orphans([first.id]))

    deletes = threading.Thread(target=delete)
    answered = engine.store.answered

    def answered_slowly(*arguments: Any) -> Job | None:
        known = answered(*arguments)
        deletes.start()
        time.sleep(0.5)
        return known

    monkeypatch.setattr(engine.store, "answered", answered_slowly)
    second = engine.submit(ask).job
    deletes.join(10)
    assert second.cached
    assert orphans == [set()]


def test_a_full_queue_takes_no_more(url: str, engine: JobEngine) -> None:
    small = JobEngine(url, queue_limit=2)
    try:
        ids = [submit(small) for _ in range(2)]
        with pytest.raises(FullQueueError) as full:
            submit(small)
        assert full.value.waiting == 2
        assert engine.count("queued") == 2
        engine.cancel(ids[0])
        assert submit(small)
    finally:
        small.close()


def test_ended_jobs_are_swept_with_their_files_and_open_ones_stay(
    engine: JobEngine, house: House
) -> None:
    house.hire()
    ids = [submit(engine, number) for number in range(3)]
    ended(engine, *ids)
    for process in house.processes:
        process.terminate()
        process.wait(15)
    waiting = submit(engine)
    forgotten: list[str] = []
    assert engine.sweep(3600, lambda job: forgotten.append(job.id)) == 0
    time.sleep(0.05)
    assert engine.sweep(0.0, lambda job: forgotten.append(job.id)) == 3
    assert sorted(forgotten) == sorted(ids)
    assert [job.id for job in engine.list()] == [waiting]


def test_only_the_owner_sees_a_job(engine: JobEngine) -> None:
    job = engine.submit(NewJob(owner="a", spec={}, batch="b1")).job
    assert engine.get(job.id, "a") == job
    assert engine.get(job.id, "b") is None
    assert engine.list("b") == []
    assert engine.list("a", batch="b1") == [job]
    assert engine.list("a", batch="b2") == []


def test_pages_hold_every_job_once(engine: JobEngine) -> None:
    ids = [submit(engine, number) for number in range(7)]
    seen: list[str] = []
    before = None
    while page := engine.list(limit=3, before=before):
        seen += [job.id for job in page]
        before = page[-1].number
    assert seen == ids[::-1]


def test_times_are_the_databases(engine: JobEngine) -> None:
    job = engine.submit(new()).job
    assert abs(job.created / 1000 - time.time()) < 5
