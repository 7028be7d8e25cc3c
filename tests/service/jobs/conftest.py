"""A job database of each kind, and real worker processes on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.jobs.engine import JobEngine
from service.jobs.records import Job
from tests.service.jobs.postgres import Cluster, running_cluster

WORKER = Path(__file__).with_name("worker_process.py")
ROOT = Path(__file__).parents[3]
SECONDS = 30.0
"""How long a test waits for anything."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server of this test run's own."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty job database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.sqlite"
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.new_database()


@pytest.fixture
def engine(url: str) -> Iterator[JobEngine]:
    """The caller's side of it."""
    engine = JobEngine(url)
    yield engine
    engine.close()


@dataclass
class House:
    """Worker processes of one database, and the log that they share."""

    url: str
    folder: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def hire(self, **options: float) -> subprocess.Popen[str]:
        """Start a worker and wait until it takes jobs."""
        settled = {"beat": 0.3, "silence": 2.0, **options}
        arguments = [f"{name}={value}" for name, value in settled.items()]
        process = subprocess.Popen(
            [sys.executable, str(WORKER), self.url, str(self.folder), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        return process

    def events(self, what: str) -> Counter[str]:
        """How often each job ``began``, ``ended`` or ``stopped``, or its answer was ``dropped``."""
        return Counter(job for kind, job, *_ in self._lines() if kind == what)

    def steps(self, *what: str) -> list[tuple[str, str]]:
        """What happened to which job, in order."""
        return [(kind, job) for kind, job, *_ in self._lines() if kind in what]

    def worker_of(self, job_id: str) -> subprocess.Popen[str]:
        """Who began a job last."""
        pid = [int(line[3]) for line in self._lines() if line[:2] == ["began", job_id]][-1]
        return next(process for process in self.processes if process.pid == pid)

    def _lines(self) -> list[list[str]]:
        log = self.folder / "log"
        return [line.split() for line in log.read_text().splitlines()] if log.is_file() else []

    def close(self) -> None:
        """Dismiss everybody, at once."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def house(url: str, tmp_path: Path, engine: JobEngine) -> Iterator[House]:
    """No workers yet."""
    house = House(url, tmp_path)
    yield house
    house.close()


Wait = Callable[[Callable[[], bool]], None]


def wait_until(holds: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait for something to become true, or fail."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def ended(engine: JobEngine, *job_ids: str, seconds: float = SECONDS) -> list[Job]:
    """The jobs, once all of them have ended."""

    def all_ended() -> bool:
        found = [engine.get(job_id) for job_id in job_ids]
        return all(job is not None and not job.open for job in found)

    wait_until(all_ended, seconds)
    return [job for job in map(engine.get, job_ids) if job is not None]
