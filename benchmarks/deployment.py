"""A whole service for a measurement: ``segmamba serve`` in processes of its own, on loopback.

Its folder, its database and its processes are made for the measurement and gone afterwards.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import psutil
import sqlalchemy as sa

from benchmarks.case import study_paths
from benchmarks.machine import ROOT, cores
from service.jobs.database import open_database
from service.jobs.tables import jobs

MODEL: Final = "benchmark"
"""Name of the bundle that a measurement writes itself (`benchmarks.case.write_bundle`)."""
START_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 30.0
_SEGMAMBA: Final = "from model_core.cli.main import main; main()"
_COPIES_AT_ONCE: Final = 500


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A service that runs.

    Attributes:
        process: the supervisor.
        address: of the API.
        database_url: of the job database.
    """

    process: psutil.Process
    address: str
    database_url: str

    def child(self, command: str) -> psutil.Process:
        """The process of ``segmamba api`` or of ``segmamba worker``."""
        return next(one for one in self.process.children() if command in one.cmdline())

    def rows(self, *columns: sa.Column[Any]) -> list[tuple[Any, ...]]:
        """Columns of the job table, the oldest job first."""
        engine = open_database(self.database_url)
        try:
            with engine.connect() as connection:
                found = connection.execute(sa.select(*columns).order_by(jobs.c.number))
                return [tuple(row) for row in found]
        finally:
            engine.dispose()

    def run_one(self, client: httpx.Client, form: Mapping[str, bytes], **fields: str) -> str:
        """Submit a study and wait for its end; the job's id.

        Raises:
            RuntimeError: it was refused, or did not succeed.
        """
        job_id = submit(client, form, **fields)
        wait_until(lambda: self.state(client, job_id) not in ("queued", "running"))
        if (state := self.state(client, job_id)) != "succeeded":
            raise RuntimeError(f"a job was expected to succeed, it {state}")
        return job_id

    def state(self, client: httpx.Client, job_id: str) -> str:
        """The state of a job."""
        return str(client.get(f"/jobs/{job_id}").raise_for_status().json()["state"])


@contextmanager
def deployed(
    folder: Path, *, model: str | None = None, database_url: str | None = None, **settings: object
) -> Iterator[Deployment]:
    """``segmamba serve`` on a free port, ready, with its data in a folder.

    Args:
        folder: new, for everything that it writes; bundles lie in ``models``.
        model: the default model; None: the bundled one.
        database_url: of an empty database; None: an SQLite file in the folder.
        settings: further ones of `service.settings.Settings`.

    Raises:
        TimeoutError: it did not become ready.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    url = database_url or f"sqlite:///{data / 'jobs.sqlite'}"
    given = {"models": folder / "models", "data_dir": data, "jobs_url": url, "device": "cpu"}
    given |= {"grace_seconds": 0} | ({"model": model} if model else {}) | settings
    said = folder / "said"
    command = [project_python(), "-c", _SEGMAMBA, "serve", "--port", "0"]
    with running(command, folder, environment(given), said) as process:
        wait_until(lambda: bool(_address(said)))
        address = _address(said)
        with httpx.Client(base_url=address, timeout=60) as client:
            wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield Deployment(process=process, address=address, database_url=url)


@contextmanager
def running(
    command: list[str], folder: Path, variables: Mapping[str, str], said: Path
) -> Iterator[psutil.Process]:
    """A server's process, ended afterwards with all that it has started."""
    with said.open("wb") as output, (folder / "log").open("wb") as errors:
        process = psutil.Popen(command, stdout=output, stderr=errors, env=variables, cwd=ROOT)
    try:
        yield process
    finally:
        _end(process)


def leave_in_good_order() -> None:
    """End by an exception on SIGTERM, so that what was started is ended too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """This process's variables with these settings of the service, and no others of it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SEGMAMBA_")}
    return own | {f"SEGMAMBA_{name.upper()}": str(value) for name, value in settings.items()}


def project_python() -> str:
    """The interpreter of the project's own environment, where this one is of the peers'."""
    own = ROOT / ".venv" / "bin" / "python"
    return str(own) if own.is_file() else sys.executable


def submit(client: httpx.Client, form: Mapping[str, bytes], **fields: str) -> str:
    """`POST /jobs` with images by contrast; the job's id. An earlier result is not wanted."""
    data = {"cache": "false"} | fields
    answer = client.post("/jobs", files=form_files(form), data=data).raise_for_status()
    return str(answer.json()["id"])


def form_files(form: Mapping[str, bytes]) -> dict[str, tuple[str, bytes]]:
    """Images by contrast as httpx sends them."""
    return {contrast: (f"{contrast}.nii.gz", data) for contrast, data in form.items()}


@contextmanager
def databases(postgres: str | None) -> Iterator[dict[str, Callable[[], str | None]]]:
    """What makes an empty database, by the database's name; all are dropped at the end.

    Args:
        postgres: URL of a server's database, where this user may create others; None: only SQLite.
    """
    with ExitStack() as stack:
        makers: dict[str, Callable[[], str | None]] = {"SQLite": lambda: None}
        if postgres is not None:
            makers["PostgreSQL"] = lambda: stack.enter_context(_new_database(postgres))
        yield makers


@contextmanager
def _new_database(server: str) -> Iterator[str]:
    url = sa.make_url(server).set(drivername="postgresql+psycopg")
    name = f"benchmark_{uuid4().hex[:12]}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
        try:
            yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


def fill(database_url: str, count: int) -> None:
    """Copy the one ended job that is there, with its place in the engine's queue, `count` times."""
    engine = open_database(database_url)
    schema = "dbos" if engine.dialect.name == "postgresql" else None
    book = sa.Table("workflow_status", sa.MetaData(), autoload_with=engine, schema=schema)
    ids = [uuid4().hex for _ in range(count)]
    try:
        with engine.begin() as connection:
            job = dict(connection.execute(sa.select(jobs)).mappings().one())
            place = dict(connection.execute(sa.select(book)).mappings().one())
            del job["number"]
            for first in range(0, count, _COPIES_AT_ONCE):
                some = ids[first : first + _COPIES_AT_ONCE]
                connection.execute(jobs.insert(), [job | {"id": one} for one in some])
                connection.execute(book.insert(), [place | {"workflow_uuid": one} for one in some])
    finally:
        engine.dispose()


def small_form(folder: Path) -> dict[str, bytes]:
    """Four small images by contrast."""
    study = study_paths(None, 0, folder, quick=True)
    return {contrast: Path(path).read_bytes() for contrast, path in study.images.items()}


def cpu_seconds(process: psutil.Process) -> float:
    """What a process and its children have used, also those that have ended."""
    return sum(own_seconds(one) for one in (process, *process.children(recursive=True)))


def own_seconds(process: psutil.Process) -> float:
    """What a process has used itself, with its children that have ended; 0 if it has."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.NoSuchProcess:
        return 0.0


def neighbours(seconds: float = 3.0) -> str:
    """What other programs take of the machine now, in a sentence for the page."""
    used = psutil.cpu_percent(seconds) / 100 * (psutil.cpu_count() or 1)
    return (
        f"Before the start, other programs kept {used:.1f} of {cores()} cores busy."
        + (" These times are those of a shared machine." if used > 0.2 else "")
    )  # fmt: skip


def wait_until(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Look again and again until something is true.

    Raises:
        TimeoutError: it did not come true in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing came within {seconds:g} s")
        time.sleep(0.05)


def _address(said: Path) -> str:
    found = re.search(r"^Listening on (http://\S+)", said.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


def _end(process: psutil.Popen) -> None:
    family = [process, *process.children(recursive=True)]
    with suppress(psutil.NoSuchProcess, subprocess.TimeoutExpired):
        process.terminate()
        process.wait(_STOP_SECONDS)
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family, timeout=_STOP_SECONDS)
