"""What a PostgreSQL and the processes around it did in a span of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import psutil
import sqlalchemy as sa

from benchmarks.deployment import cpu_seconds, own_seconds

_STATEMENTS: Final = """
    SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
    JOIN pg_database ON pg_database.oid = dbid WHERE datname = :name
"""
_COUNTS: Final = """
    SELECT xact_commit + xact_rollback, tup_inserted + tup_updated + tup_deleted
    FROM pg_stat_database WHERE datname = :name
"""
_NOW: Final = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
_CONNECTED: Final = "SELECT count(*) FROM pg_stat_activity WHERE datname = :name"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Counters at a moment; processor time in seconds.

    Attributes:
        at: milliseconds since 1970 by the database's clock.
        statements: that the server has executed in the database, BEGIN and COMMIT among them.
        transactions: committed or rolled back.
        written: rows inserted, updated or deleted.
        database: processor time of the server, its backends included.
        apis: of the APIs.
        workers: of the workers and their helpers.
    """

    at: float
    statements: float
    transactions: float
    written: float
    database: float
    apis: float
    workers: float

    def __sub__(self, earlier: Reading) -> Reading:
        """What came between two moments."""
        names = self.__dataclass_fields__
        return Reading(**{name: getattr(self, name) - getattr(earlier, name) for name in names})

    @property
    def seconds(self) -> float:
        """Of a span."""
        return self.at / 1000


class Meter:
    """Reads counters; from another database of the server, so that it does not count itself.

    Args:
        server: URL of that other database.
        name: of the database that is watched.
        apis: processes.
        workers: processes, with whatever they start.

    Raises:
        SystemExit: the server does not count statements.
    """

    def __init__(
        self,
        server: str,
        name: str,
        apis: Sequence[psutil.Process],
        workers: Sequence[psutil.Process],
    ) -> None:
        url = sa.make_url(server).set(drivername="postgresql+psycopg")
        self._engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", pool_size=1)
        self._name, self._apis, self._workers = name, apis, workers
        try:
            self._ask("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            self._ask(_STATEMENTS, name=name)
        except sa.exc.DBAPIError:
            raise SystemExit(
                "The server counts no statements: start it with "
                "-c shared_preload_libraries=pg_stat_statements (benchmarks/README.md)."
            ) from None
        backend = psutil.Process(self._number("SELECT pg_backend_pid()"))
        parent = backend.parent()
        assert parent is not None
        self._server = parent

    def read(self) -> Reading:
        """The counters now."""
        counts = self._ask(_COUNTS, name=self._name)[0]
        return Reading(
            at=self._number(_NOW),
            statements=self._number(_STATEMENTS, name=self._name),
            transactions=float(counts[0]),
            written=float(counts[1]),
            database=cpu_seconds(self._server),
            apis=sum(own_seconds(one) for one in self._apis),
            workers=sum(cpu_seconds(one) for one in self._workers),
        )

    def connections(self) -> int:
        """That are open to the database now."""
        return self._number(_CONNECTED, name=self._name)

    def close(self) -> None:
        """Give the connection back."""
        self._engine.dispose()

    def _number(self, query: str, **values: str) -> int:
        return int(self._ask(query, **values)[0][0])

    def _ask(self, query: str, **values: str) -> list[Any]:
        with self._engine.connect() as connection:
            found = connection.execute(sa.text(query), values)
            return list(found) if found.returns_rows else []
