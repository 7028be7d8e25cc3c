"""Request ids, structured logs and request metrics; never a word about the patient.

A log line is one JSON object on stderr. It may hold field names, sizes, times, model names and
exception types; it never holds a file name, an uploaded value, a query string, an unmatched path
or an exception's message (which could quote any of them).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

_REQUEST_ID: ContextVar[str | None] = ContextVar("segmamba_request_id", default=None)
_ACCEPTED_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STANDARD_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_DEEPEST_FRAMES: Final = 6


def current_request_id() -> str | None:
    """The id of the request being served in this context, if any."""
    return _REQUEST_ID.get()


def adopt_request_id(offered: str | None) -> str:
    """Take the caller's request id if it is short and harmless, else make one."""
    harmless = offered is not None and _ACCEPTED_REQUEST_ID.fullmatch(offered)
    request_id = offered if offered is not None and harmless else uuid.uuid4().hex
    _REQUEST_ID.set(request_id)
    return request_id


def describe_exception(error: BaseException) -> Mapping[str, Any]:
    """Type and innermost code positions of an exception, without its message or any value."""
    frames = traceback.extract_tb(error.__traceback__)[-_DEEPEST_FRAMES:]
    return {
        "exception": type(error).__name__,
        "at": [f"{_module_path(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames],
    }


def _module_path(filename: str) -> str:
    return "/".join(filename.replace("\\", "/").split("/")[-2:])


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, event, request id and the extras."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if (request_id := current_request_id()) is not None:
            line["request_id"] = request_id
        for key, value in vars(record).items():
            if key not in _STANDARD_ATTRIBUTES and key != "color_message":
                line[key] = value
        if record.exc_info and record.exc_info[1] is not None:
            line.update(describe_exception(record.exc_info[1]))
        return json.dumps(line, default=str)


def configure_logging(level: str) -> None:
    """Send this process's log to stderr as JSON lines; called by `segmamba serve` only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The parser of form bodies logs what it reads.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class Stopwatch:
    """Seconds since it was made, on the monotonic clock."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start
