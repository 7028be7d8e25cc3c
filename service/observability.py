"""Ids of requests and jobs, and structured logs; never a word about the patient.

A log line is one JSON object on stderr, with the ids of the request and the job that it is about
and of the trace that they belong to. It may hold field names, sizes, times, model names and
exception types; it never holds a file name, an uploaded value, a query string, an unmatched path
or an exception's message (which could quote any of them).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import traceback
import uuid
import warnings
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from opentelemetry import trace

logger = logging.getLogger("service")


@dataclass
class _Ids:
    """What happens now: one object for a request, its tasks and the threads that work for it."""

    request: str | None = None
    job: str | None = None


_IDS: ContextVar[_Ids | None] = ContextVar("segmamba_ids", default=None)
_ACCEPTED_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STANDARD_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_DEEPEST_FRAMES: Final = 6


def current_request_id() -> str | None:
    """The id of the request being served here, or of the job where a worker does one."""
    ids = _IDS.get()
    return None if ids is None else ids.request or ids.job


def current_job_id() -> str | None:
    """The job that the request being served, or the worker, is about."""
    ids = _IDS.get()
    return None if ids is None else ids.job


def adopt_request_id(offered: str | None) -> str:
    """Take the caller's request id if it is short and harmless, else make one."""
    harmless = offered is not None and _ACCEPTED_REQUEST_ID.fullmatch(offered)
    request_id = offered if offered is not None and harmless else uuid.uuid4().hex
    _IDS.set(_Ids(request=request_id))
    return request_id


def name_job(job_id: str) -> None:
    """Put a job's id into every line from here on; of one that exists, never a caller's word."""
    ids = _IDS.get()
    if ids is None:
        _IDS.set(_Ids(job=job_id))
    else:
        ids.job = job_id


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
    """One JSON object per record: time, level, logger, event, ids and the extras."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update(_current_ids())
        for key, value in vars(record).items():
            if key not in _STANDARD_ATTRIBUTES and key != "color_message":
                line[key] = value
        if record.exc_info and record.exc_info[1] is not None:
            line.update(describe_exception(record.exc_info[1]))
        return json.dumps(line, default=str)


def _current_ids() -> dict[str, str]:
    ids = _IDS.get() or _Ids()
    span = trace.get_current_span().get_span_context()
    named = {
        "request_id": ids.request,
        "job": ids.job,
        "trace_id": trace.format_trace_id(span.trace_id) if span.is_valid else None,
    }
    return {name: value for name, value in named.items() if value is not None}


def configure_logging(level: str) -> None:
    """Send this process's log to stderr as JSON lines; called by `segmamba serve` only.

    So do warnings and exceptions that nobody catches, without their texts.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The parser of form bodies logs what it reads.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    warnings.showwarning = _log_warning
    sys.excepthook = lambda _kind, error, _trace: _log_uncaught(error)
    threading.excepthook = lambda args: _log_uncaught(args.exc_value)


def _log_warning(
    message: Warning | str,  # noqa: ARG001 - may quote anything
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001 - the log
    line: str | None = None,  # noqa: ARG001 - of the source
) -> None:
    place = f"{_module_path(filename)}:{lineno}"
    logger.warning("a warning", extra={"exception": category.__name__, "at": [place]})


def _log_uncaught(error: BaseException | None) -> None:
    if error is not None:
        logger.critical("an exception that nobody caught", extra={**describe_exception(error)})


class Stopwatch:
    """Seconds since it was made, on the monotonic clock."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start
