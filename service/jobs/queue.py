"""What this project takes from DBOS: a durable queue in the job database, and nothing else.

Everything that touches DBOS is here and in `service.jobs.executor`. Three of its parts are not
public and are wrapped, each bound to its contract by tests/service/jobs: the recovery of a dead
worker's jobs, the loop that takes jobs from the queue, and the list of what runs in a process.
Hence the narrow range of releases in pyproject.toml.
"""

from __future__ import annotations

import json
import logging
from typing import Any, Final

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, EnqueueOptions, Serializer
from dbos import error as engine_errors

QUEUE: Final = "segmentations"
WORKFLOW: Final = "segment"
APPLICATION: Final = "segmamba"
APPLICATION_VERSION: Final = "jobs-1"
"""Ours and constant: a queue serves only its own version, and an update must not strand jobs."""
SCHEMA: Final = "dbos"
_CLASS_SIZE: Final = 10**8
"""Numbers of jobs before a lower priority's begin; far more than ever wait at a time."""


class JsonSerializer(Serializer):
    """Arguments and results as JSON: what is read from a database must not run code."""

    def name(self) -> str:
        """The name that stands beside the data."""
        return "segmamba_json"

    def serialize(self, data: Any) -> str:
        """Encode; an exception becomes its class's name, for its text may hold anything."""
        return json.dumps(data, default=_described)

    def deserialize(self, serialized_data: str) -> Any:
        """Decode; what was an exception is one again, without its type."""
        value = json.loads(serialized_data)
        if isinstance(value, dict) and set(value) == {"__exception__"}:
            return RuntimeError(value["__exception__"])
        return value


def migrate(url: str) -> None:
    """Create or update the engine's own tables; several processes may do it at a time."""
    hear_the_engine()
    DBOS.migrate(url, schema=SCHEMA)


def hear_the_engine() -> None:
    """Let its warnings go where the process's logs go, but for one that is no news.

    It logs an error for every cancelled job whose function returns afterwards, as all do.
    """
    log = logging.getLogger("dbos")
    log.setLevel(logging.WARNING)
    if not any(isinstance(handler, logging.NullHandler) for handler in log.handlers):
        log.addHandler(logging.NullHandler())  # else it adds one that writes to stderr
        log.addFilter(_no_news)
    log.propagate = True


def _no_news(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    return kind is not engine_errors.DBOSAwaitedWorkflowCancelledError


class JobQueue:
    """The sending end.

    Args:
        engine: of the job database; a job and its place in the queue are one transaction.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._client = DBOSClient(
            system_database_engine=engine,
            dbos_system_schema=SCHEMA,
            serializer=JsonSerializer(),
            application_name=APPLICATION,
            retry_connection_errors=False,  # a caller is told to come back
        )

    def put(self, connection: sa.Connection, job_id: str, *, order: int) -> None:
        """Queue a job inside the caller's transaction."""
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": QUEUE,
            "workflow_id": job_id,
            "app_version": APPLICATION_VERSION,
            "priority": order,
        }
        self._client.enqueue_in_transaction(connection, options, job_id)

    def take_out(self, job_id: str) -> None:
        """Remove a job that waits; one that runs is told by its row."""
        self._client.cancel_workflow(job_id)

    def forget(self, job_ids: list[str]) -> None:
        """Delete what the queue knows of ended jobs."""
        self._client.delete_workflows(job_ids)

    def close(self) -> None:
        """Give the connections back."""
        self._client.destroy()


def order_of(number: int, priority: int) -> int:
    """Place in the queue, lowest first: by priority (0 is the highest), then by number.

    The library itself orders one second's jobs at random on SQLite.
    """
    return priority * _CLASS_SIZE + number % _CLASS_SIZE + 1


def _described(value: object) -> dict[str, str]:
    if isinstance(value, BaseException):
        return {"__exception__": type(value).__name__}
    raise TypeError(f"a {type(value).__name__} is not JSON")
