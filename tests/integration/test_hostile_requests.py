"""More than ten thousand hostile requests to a real server: it answers, forgets, does not grow."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import sqlalchemy as sa

from model_core.imaging.nifti import read_label_map
from service.jobs.database import open_database
from service.jobs.records import OPEN_STATES
from service.jobs.tables import jobs
from tests.hostile.corpus import corpus
from tests.hostile.traffic import NAME, Attack, mixture, studies
from tests.hostile.wire import Tally, storm
from tests.service.fakes import wait_until
from tests.service.servers import (
    Server,
    form_files,
    head_images,
    serve_process,
    wait_ready,
    write_tiny_bundle,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

WARM_UP, COUNTED = 5_000, 8_000
GROWTH = 1.05
POOLED_FILES = 60
"""Of two pools of eight connections at most, with three files each, and some to spare."""
SETTLE_SECONDS = 90.0
LIMITS = {
    "max_upload_mb": 16, "max_file_mb": 8, "max_megavoxels": 2, "upload_seconds": 3,
    "reading_memory_mb": 160, "reading_cpu_seconds": 10, "reading_seconds": 20,
    "queue_size": 10_000,
}  # fmt: skip


@dataclass(frozen=True)
class Level:
    """What a process holds; connections to the job database are pooled, and so apart."""

    rss: int
    files: int
    database: int
    children: int

    @classmethod
    def of(cls, process: psutil.Process) -> Level:
        database = sum("jobs.sqlite" in file.path for file in process.open_files())
        return cls(
            rss=process.memory_info().rss,
            files=process.num_fds() - database,
            database=database,
            children=len(process.children(recursive=True)),
        )

    def within(self, other: Level) -> bool:
        """No more than another level, with some percent of memory to spare."""
        return (
            self.rss <= GROWTH * other.rss
            and self.files <= other.files
            and self.database <= POOLED_FILES
            and self.children <= other.children
        )


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    write_tiny_bundle(tmp_path / "models")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    with serve_process(tmp_path, data_dir=tmp_path / "data", **LIMITS) as server:
        wait_ready(server.client, 120)
        yield server


def test_ten_thousand_hostile_requests_leave_nothing_behind(
    running: Server, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    client = running.client
    processes = {name: child(running, name) for name in ("api", "worker")}
    truth = segmented(client)
    temporary = sorted((tmp_path / "tmp").rglob("*"))
    tally = Tally()
    attacks = all_attacks(tally)

    began = time.monotonic()
    attack(client, itertools.islice(attacks, WARM_UP), tally)
    settle(client)
    assert segmented(client) == truth
    warm = {name: lowest(process) for name, process in processes.items()}
    attack(client, attacks, tally)
    settle(client)
    seconds = round(time.monotonic() - began)

    assert tally.bad == [], tally.bad[:3]
    assert sum(tally.answers.values()) > (WARM_UP + COUNTED) / 2
    check_studies(client, tally)
    assert segmented(client) == truth, "a good study is segmented as before"
    check_log(running)
    check_files(tmp_path)
    assert sorted((tmp_path / "tmp").rglob("*")) == temporary
    now = {name: settled(process, warm[name]) for name, process in processes.items()}
    measured = {"seconds": seconds, "warm": warm, "now": now, **tally.answers}
    record_property("measured", repr(measured))
    for name, level in now.items():
        assert level.within(warm[name]), (name, warm[name], level)
    running.stop(signal.SIGTERM, 120)
    assert list((tmp_path / "tmp").glob("pymp-*")) == [], "what a worker had there goes with it"


def all_attacks(tally: Tally) -> Iterator[Attack]:
    """All of them, the studies of hostile files spread evenly among the others."""
    hostile = studies(seed=5)
    other = mixture(7, WARM_UP + COUNTED - len(corpus()), tally.jobs)
    step = (WARM_UP + COUNTED) // len(corpus())
    for number in range(WARM_UP + COUNTED):
        due = next(hostile, None) if number % step == 0 else None
        yield due or next(other)


def attack(client: httpx.Client, attacks: Iterator[Attack], tally: Tally) -> None:
    url = client.base_url
    asyncio.run(storm(url.host, url.port or 80, attacks, tally))


def child(server: Server, name: str) -> psutil.Process:
    """One of the supervisor's processes."""
    found = psutil.Process(server.process.pid).children()
    (process,) = (one for one in found if name in one.cmdline()[3:4])
    return process


def segmented(client: httpx.Client) -> bytes:
    """The label map of a good study, computed anew."""
    answer = client.post("/segment", files=form_files(head_images()), data={"cache": "false"})
    assert answer.status_code == 200, answer.text
    labels, _ = read_label_map(answer.content, argument="answer")
    assert len(set(labels.flat)) > 1
    return answer.content


def settle(client: httpx.Client) -> None:
    """Wait until no job waits or runs."""

    def quiet() -> bool:
        states = [client.get("/jobs", params={"state": state}).json() for state in OPEN_STATES]
        return not any(page["jobs"] for page in states)

    wait_until(quiet, 300)


def lowest(process: psutil.Process) -> Level:
    """The level of some quiet seconds."""
    levels = []
    for _ in range(10):
        levels.append(Level.of(process))
        time.sleep(0.5)
    return min(levels, key=lambda level: (level.files, level.rss))


def settled(process: psutil.Process, before: Level) -> Level:
    """The level once it is no more than before, or after a while."""
    end = time.monotonic() + SETTLE_SECONDS
    while not (level := Level.of(process)).within(before) and time.monotonic() < end:
        time.sleep(0.5)
    return level


def check_studies(client: httpx.Client, tally: Tally) -> None:
    """Every hostile file was refused in its own words, at the door or by its job, or harmless."""
    assert len(tally.studies) + len(tally.refused) == len(corpus())
    for sent, answer in tally.refused:
        assert sent.entry is not None
        assert sent.entry.says is not None
        assert sent.entry.says.encode() in answer, (sent.entry.name, answer)
    harmless = 0
    for address, sent in tally.studies.items():
        job = client.get(address).json()
        assert sent.entry is not None
        assert job["attempts"] == 1
        if job["state"] == "succeeded":
            assert sent.entry.says is None, sent.entry.name
            harmless += 1
        else:
            assert job["state"] == "failed", (sent.entry.name, job)
            assert job["error"]["status"] == 422, (sent.entry.name, job)
            # what a reader takes may still be no study: one value everywhere in the brain
            assert (sent.entry.says or "Check that") in job["error"]["detail"], sent.entry.name
    assert harmless > 10


def check_log(server: Server) -> None:
    """No process ended, nothing failed, and no name was written down."""
    assert NAME.decode() not in server.log.read_text()
    unexpected = [event for event in server.events() if event["level"] in ("error", "critical")]
    assert unexpected == []
    assert not any(event["event"] == "a process ended" for event in server.events())


def check_files(place: Path) -> None:
    """What lies in the data folder is what the database speaks of."""
    engine = open_database(f"sqlite:///{place / 'data' / 'jobs.sqlite'}")
    with engine.connect() as connection:
        rows = connection.execute(sa.select(jobs.c.state, jobs.c.result)).all()
    engine.dispose()
    assert not {row.state for row in rows} & set(OPEN_STATES)
    blobs = place / "data" / "blobs"
    found = {str(path.relative_to(blobs)) for path in blobs.rglob("*") if path.is_file()}
    assert found == {
        row.result[kind] for row in rows if row.state == "succeeded" for kind in ("key", "archive")
    }
    assert list((blobs / "inputs").iterdir()) == []
    assert {path.name.split(".")[0] for path in (place / "data").iterdir()} == {
        "blobs", "jobs", "metrics",
    }  # fmt: skip
