"""The one database of a deployment: an SQLite file by default, PostgreSQL by URL.

SQLite is for one machine with a local disk: a lock on a network file system does not exclude other
machines, and the file is lost one day. `open_database` therefore looks at the file system first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import psutil
import sqlalchemy as sa

from model_core.errors import OptionError

logger = logging.getLogger("service.jobs")

UNREACHABLE: Final = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)
"""What is raised while the database is away: it restarts, the network is cut, no connection is
free. The same statement may succeed a moment later."""
BUSY_MILLISECONDS: Final = 30_000
"""How long a writer waits for another one; SQLite has one writer at a time."""
NETWORK_FILE_SYSTEMS: Final = (
    "nfs", "cifs", "smb", "fuse", "9p", "afs", "ceph", "gluster", "lustre",
)  # fmt: skip
"""Beginnings of names of file systems whose locks or whose order of writes SQLite cannot trust."""
_POOL_SIZE: Final = 8
_CACHE_KIB: Final = 256
"""Of pages that each connection keeps. With SQLite's own 2 MB, in every connection of two pools, a
process of 110 MB grew by a tenth while its database filled; the kernel keeps the pages as well."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")


def open_database(url: str) -> sa.Engine:
    """A connection pool for a job database's URL.

    Args:
        url: ``sqlite:////absolute/path`` or ``postgresql://user@host/name``.

    Raises:
        OptionError: another kind of database, or an SQLite file on a network file system.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed)
    return sa.create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_size=_POOL_SIZE,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={"client_encoding": "utf8"},  # of SQL_ASCII the driver would give bytes
    )


def asked_again(ask: Callable[_Given, _Answer]) -> Callable[_Given, _Answer]:
    """A method that asks the database, and again for as long as that is away.

    For what must not be lost with the process alive: the end of a job that took minutes. It may
    have been done before the connection broke, so it must be a thing that can be done twice.
    """

    @wraps(ask)
    def wait(*args: _Given.args, **kwargs: _Given.kwargs) -> _Answer:
        pause = _FIRST_PAUSE
        while True:
            try:
                return ask(*args, **kwargs)
            except UNREACHABLE as error:
                logger.warning("the database is away", extra={"exception": type(error).__name__})
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    return wait


def now_ms(engine: sa.Engine) -> sa.ColumnElement[int]:
    """Milliseconds since 1970 by the database's own clock: workers' clocks may differ."""
    if engine.dialect.name == "sqlite":
        return sa.literal_column("CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)")
    return sa.literal_column("CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)")


def file_system_of(path: Path) -> str:
    """Name of the file system that holds a path, which may not exist yet; empty if unknown."""
    place = path.resolve()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounts[folder] for folder in (place, *place.parents) if folder in mounts), "")


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
        known = parsed.get_backend_name() in ("sqlite", "postgresql")
    except (sa.exc.ArgumentError, ValueError):
        known = False
    if not known:
        raise OptionError(
            "SEGMAMBA_JOBS_URL",
            expected="sqlite:////absolute/path/jobs.sqlite or postgresql://user@host/name",
            got="another URL",  # it may hold a password
            way_out="Leave it out for a file in SEGMAMBA_DATA_DIR.",
        )
    return parsed


def _open_sqlite(url: sa.URL) -> sa.Engine:
    path = Path(url.database or "").absolute()
    kind = file_system_of(path)  # of what it leads to: the file itself may be a link
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        raise OptionError(
            "SEGMAMBA_JOBS_URL",
            expected="an SQLite file on a local disk",
            got=f"one on a file system of type {kind}",
            way_out="Use a local folder, or PostgreSQL for several machines.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    wait = {"timeout": BUSY_MILLISECONDS / 1000}
    engine = sa.create_engine(url, pool_size=_POOL_SIZE, max_overflow=0, connect_args=wait)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Readers beside one writer (WAL), commits that survive a power cut, waiting for the lock."""
    connection.isolation_level = "IMMEDIATE"
    connection.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
