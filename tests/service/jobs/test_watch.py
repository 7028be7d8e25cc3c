"""Callers who wait for a job hear of what came after the state that they know."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from service.jobs.engine import JobEngine
from service.jobs.records import Job, NewJob
from service.jobs.watch import Watch


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[JobEngine]:
    engine = JobEngine(f"sqlite:///{tmp_path}/jobs.sqlite")
    yield engine
    engine.close()


@pytest.fixture
def watch(engine: JobEngine) -> Iterator[Watch]:
    watch = Watch(engine.store)
    watch.start()
    yield watch
    watch.stop()


def test_a_second_follower_who_knows_less_hears_what_the_first_one_has_heard(
    engine: JobEngine, watch: Watch
) -> None:
    async def follow() -> str:
        job = engine.submit(NewJob(owner="a", spec={})).job
        async with aclosing(watch.changes(job)) as first, aclosing(watch.changes(job)) as second:
            await anext(first)
            engine.store.claim(job.id, "w")
            assert (await anext(first)).state == "running"
            await asyncio.sleep(0.2)  # the change has been looked at, and nothing is written now
            await anext(second)
            heard: Job = await asyncio.wait_for(anext(second), 5)
        return heard.state

    assert asyncio.run(follow()) == "running"
