"""Two APIs and one fleet of simulated workers after the other, on one PostgreSQL."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import sqlalchemy as sa

from benchmarks.case import write_bundle
from benchmarks.deployment import (
    MODEL,
    environment,
    project_python,
    running,
    submit,
    wait_until,
)
from benchmarks.scale_meter import Meter
from service.jobs.tables import jobs, workers

APIS: Final = 2
_LOOK_SECONDS: Final = 0.5
_PROGRAM: Final = "from model_core.cli.main import main; main()"


@dataclass(kw_only=True)
class Site:
    """Two APIs and a database, for one fleet after the other.

    Attributes:
        folder: of everything.
        server: URL of another database of the same server.
        url: of the job database.
        settings: of every process.
        apis: processes.
        addresses: of them.
        seconds: file with the seconds of a job.
    """

    folder: Path
    server: str
    url: str
    settings: Mapping[str, object]
    seconds: Path
    apis: list[psutil.Process] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    @contextmanager
    def fleet(self, count: int, truth: Path) -> Iterator[Meter]:
        """So many workers, ready, and what reads the counters."""
        with ExitStack() as stack:
            processes = []
            if count:
                command = [project_python(), "-m", "benchmarks.scale_worker"]
                command += ["--count", str(count), "--truth", str(truth)]
                command += ["--seconds", str(self.seconds)]
                (here := self.folder / "fleet").mkdir(exist_ok=True)
                variables = environment(self.settings)
                variables["PROMETHEUS_MULTIPROC_DIR"] = str(self.folder / "data" / "metrics")
                processes = [stack.enter_context(running(command, here, variables, here / "said"))]
            wait_until(lambda: len(self.rows(workers.c.id)) == count)
            name = str(sa.make_url(self.url).database)
            meter = Meter(self.server, name, self.apis, processes)
            stack.callback(meter.close)
            yield meter

    def rows(self, *columns: sa.Column[Any], since: float = 0) -> list[Any]:
        """Of a table; of jobs only those made since a time."""
        query = sa.select(*columns)
        if columns[0].table is jobs:
            query = query.where(jobs.c.created >= since).order_by(jobs.c.number)
        url = sa.make_url(self.url).set(drivername="postgresql+psycopg")
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return list(connection.execute(query))

    def send(self, form: Mapping[str, bytes], count: int) -> None:
        """Submit a study so many times, through all APIs at once."""

        def some(address: str, share: int) -> None:
            with httpx.Client(base_url=address, timeout=120) as client:
                for _ in range(share):
                    submit(client, form)

        shares = [len(range(first, count, APIS)) for first in range(APIS)]
        threads = [
            threading.Thread(target=some, args=pair)
            for pair in zip(self.addresses, shares, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def wait_done(self) -> None:
        """Until no job waits or runs.

        Raises:
            RuntimeError: one has failed, so that nothing here would mean anything.
        """
        while {"queued", "running"} & (states := {row[0] for row in self.rows(jobs.c.state)}):
            time.sleep(_LOOK_SECONDS)
        if states != {"succeeded"}:
            raise RuntimeError(f"all jobs were expected to succeed, they {sorted(states)}")

    def last(self) -> float:
        """When the newest job came; a moment before the next one does."""
        return max((row[0] for row in self.rows(jobs.c.created)), default=0) + 1


@contextmanager
def site(folder: Path, server: str, url: str) -> Iterator[Site]:
    """The APIs, up."""
    seconds = folder / "seconds"
    write_bundle(folder / "models" / MODEL, "tiny SegMamba", window=32)
    given = {"models": folder / "models", "model": MODEL, "data_dir": folder / "data"}
    given |= {"jobs_url": url, "device": "cpu", "threads": 1, "port": 0, "grace_seconds": 0}
    given |= {"queue_size": 1_000_000}
    made = Site(folder=folder, server=server, url=url, settings=given, seconds=seconds)
    with ExitStack() as stack:
        for number in range(APIS):
            (here := folder / f"api{number}").mkdir()
            said = here / "said"
            command = [project_python(), "-c", _PROGRAM, "api"]
            process = running(command, here, environment(given), said)
            made.apis.append(stack.enter_context(process))
            wait_until(lambda said=said: "http://" in said.read_text(encoding="utf-8"))
            made.addresses += re.findall(r"http://\S+", said.read_text(encoding="utf-8"))
        yield made
