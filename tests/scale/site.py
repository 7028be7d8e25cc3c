"""A whole deployment on hosts of its own: callers, two APIs, three workers, PostgreSQL, S3."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from service.jobs.database import UNREACHABLE, open_database
from service.jobs.tables import jobs, workers
from tests.scale.network import Host, Network
from tests.scale.services import BUCKET, DatabaseHost, StoreHost, start_api, start_segmamba
from tests.service.fakes import wait_until
from tests.service.servers import write_tiny_bundle

SILENCE = 6
"""Seconds after which a worker is taken for dead."""
WORKERS = 3
APIS = 2
PATIENCE = 180.0
"""Seconds; for a busy machine."""


@dataclass(frozen=True)
class Site:
    """All hosts, and what can be seen of them.

    Attributes:
        folder: each host's own files lie in a folder of its name.
        caller: where the callers are.
        database: PostgreSQL.
        store: S3.
        apis: by address.
        workers: by the worker's id.
        tables: of the job database.
    """

    folder: Path
    caller: Host
    database: DatabaseHost
    store: StoreHost
    apis: dict[str, Host]
    workers: dict[str, Host]
    tables: sa.Engine

    def rows(self, *columns: sa.Column[Any]) -> list[Any]:
        """Of a table; asked again while the database is away."""
        return self._ask(sa.select(*columns))

    def job(self, job_id: str) -> Any:
        """A job's row."""
        columns = (jobs.c.state, jobs.c.worker, jobs.c.attempts, jobs.c.done, jobs.c.result)
        return self._ask(sa.select(*columns).where(jobs.c.id == job_id))[0]

    def caught(self, job_id: str) -> Host:
        """The host that has begun a job's windows and has not done them all."""
        found: list[str] = []

        def begun() -> bool:
            row = self.job(job_id)
            assert row.state in ("queued", "running"), "the study was not long enough"
            found[:] = [row.worker] if row.state == "running" and row.done > 0 else []
            return bool(found)

        wait_until(begun, PATIENCE)
        return self.workers[found[0]]

    def wait_for(self, *job_ids: str) -> None:
        """Until these jobs have succeeded."""

        def all_done() -> bool:
            states = dict(self.rows(jobs.c.id, jobs.c.state))
            return all(states[job_id] == "succeeded" for job_id in job_ids)

        wait_until(all_done, PATIENCE)

    def wait_ready(self) -> None:
        """Until all workers take jobs."""

        def all_there() -> bool:
            there = sa.inspect(self.tables).has_table(workers.name)
            return there and len(self.rows(workers.c.id)) == WORKERS

        wait_until(all_there, PATIENCE)

    def counted(self) -> int:
        """Jobs that the workers say have succeeded under their hands."""
        total = 0.0
        for name in self.workers:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, path=str(self.folder / name / "metrics"))
            label = {"state": "succeeded"}
            total += registry.get_sample_value("segmamba_jobs_ended_total", label) or 0
        return int(total)

    def _ask(self, query: sa.Select[Any]) -> list[Any]:
        while True:
            try:
                with self.tables.connect() as connection:
                    return list(connection.execute(query))
            except UNREACHABLE:
                time.sleep(0.2)


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """Everything started, and this thread at the callers' host."""
    write_tiny_bundle(folder / "models")
    (cluster := folder / "pg").mkdir()
    with Network() as network:
        caller = network.host("caller")
        with caller.entered():
            database = DatabaseHost(cluster, network.host("database"))
            database.start()
            store = StoreHost(folder, network.host("store"))
            tables = open_database(url := database.new_database())
            environment = _settings(folder, url) | store.environment()
            hosts = [network.host(f"worker{number}") for number in range(WORKERS)]
            for host in hosts:
                start_segmamba(host, "worker", folder, environment)
            doors = [network.host(f"api{number}") for number in range(APIS)]
            addresses = [start_api(host, folder, environment) for host in doors]
            yield Site(
                folder=folder,
                caller=caller,
                database=database,
                store=store,
                apis=dict(zip(addresses, doors, strict=True)),
                workers={host.name: host for host in hosts},
                tables=tables,
            )
            tables.dispose()
            database.stop()


def _settings(folder: Path, url: str) -> dict[str, str]:
    given = {
        "models": folder / "models",
        "model": "tiny",
        "device": "cpu",
        "threads": 1,
        "jobs_url": url,
        "blobs_url": f"s3://{BUCKET}",
        "silence_seconds": SILENCE,
        "attempts": 10,  # a starved worker on a busy machine may seem dead without a fault
        "auth": "off",
        "allow_unauthenticated": True,
    }
    return {f"SEGMAMBA_{name.upper()}": str(value) for name, value in given.items()}
