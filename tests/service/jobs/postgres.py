"""A real PostgreSQL server for tests, from the system's package, on a port of loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest


def find_server() -> Path | None:
    """The folder of PostgreSQL's programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    beside = shutil.which("initdb")
    return found[-1].parent if found else Path(beside).parent if beside else None


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A server that runs, in a folder of its own; the test is skipped where there is none.

    Not in pytest's folder for temporary files: every run of pytest that begins closes the way there
    to other users, also while this one goes on.
    """
    if find_server() is None:
        pytest.skip("PostgreSQL is not installed (make servers)")
    folder = Path(tempfile.mkdtemp(prefix="segmamba-pg-"))
    try:
        cluster = Cluster(folder)
        cluster.start()
        yield cluster
        with suppress(subprocess.SubprocessError):  # the tests have said what they had to say
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Cluster:
    """One server with its data in a folder; root hands it to the user ``postgres``."""

    def __init__(self, folder: Path) -> None:
        programs = find_server()
        assert programs is not None
        self.programs, self.folder = programs, folder
        self.data, self.port = folder / "data", _free_port()
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user is not None:
            _open_the_way(folder)
            shutil.chown(folder, self._user)
        letters = ("-E", "UTF8", "--no-locale")
        self._run("initdb", "-D", str(self.data), "-A", "trust", "-U", "tester", "-N", *letters)

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = str(self.folder / "server.log")
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", log, "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop; ``immediate`` is what a crash looks like to everybody else."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def new_database(self, encoding: str = "UTF8") -> str:
        """The URL of an empty database."""
        name = f"jobs_{uuid4().hex}"
        made = f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(made)  # type: ignore[arg-type]
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql://tester@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        demote = _become(self._user) if self._user else None
        subprocess.run(
            [str(self.programs / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=demote,
            cwd="/",
            timeout=60,
        )


def _become(user: str) -> Callable[[], None]:
    entry = pwd.getpwnam(user)

    def demote() -> None:
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)

    return demote


def _open_the_way(folder: Path) -> None:
    """Let another user through the private folders above."""
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
