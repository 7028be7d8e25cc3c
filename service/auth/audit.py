"""The audit log: one JSON line for each act that matters for security, and never a patient's word.

A line holds the time, who, what, which job, how it ended and the request id; the caller's address
only where the operator wants it. Anything but a short token is written as ``?``, so that no file
name, header or body can get in by mistake.
"""

from __future__ import annotations

import io
import logging
import os
import re
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, Final, Literal

from model_core.errors import OptionError
from service.auth.principal import Principal
from service.observability import JsonFormatter

logger = logging.getLogger("service.audit")

Act = Literal["submit", "read-result", "cancel", "delete", "refused"]

_TOKEN: Final = re.compile(r"[A-Za-z0-9._:%-]{1,64}")
"""Ids of ours, causes of problems, IPv4 and IPv6 addresses."""


class AuditLog:
    """Writes to a file of its own, or to the logger ``service.audit``.

    Args:
        path: the file, made with mode 0600; one that is there keeps its mode. When it has been
            rotated away, the next line opens a new one.
        addresses: whether the caller's address is written.

    Raises:
        OptionError: the file cannot be written.
    """

    def __init__(self, path: Path | None = None, *, addresses: bool = False) -> None:
        self._addresses = addresses
        self._file = None if path is None else _open(path)

    def note(
        self,
        act: Act,
        principal: Principal | None,
        *,
        outcome: str = "done",
        job: str | None = None,
        address: str | None = None,
    ) -> None:
        """Write one line.

        Args:
            act: what was asked for.
            principal: who asked; None: nobody known.
            outcome: done, or the cause of the problem that was answered.
            job: the id of the job.
            address: where the request came from.
        """
        facts = {
            "act": act,
            "principal": None if principal is None else principal.id,
            "job": job,
            "outcome": outcome,
            **({"address": address} if self._addresses else {}),
        }
        extra = {name: _token(value) for name, value in facts.items()}
        if self._file is None:
            logger.info("audit", extra=extra)
        else:
            self._file.handle(
                logger.makeRecord(logger.name, logging.INFO, "", 0, "audit", (), None, extra=extra)
            )

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class _PrivateFile(WatchedFileHandler):
    """A file that only its owner reads; a line that is lost is told, and harms nothing."""

    def _open(self) -> io.TextIOWrapper:
        # a file descriptor of our own: the mode counts from the first moment
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.fdopen(os.open(self.baseFilename, flags, 0o600), "a", encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line into the file that has the name now."""
        try:
            super().emit(record)
        except OSError:  # opening it anew is outside what the base class catches
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base's name
        """Tell the operator, through the service's log."""
        logger.exception("an audit line is lost", extra={"act": vars(record).get("act")})


def _open(path: Path) -> logging.Handler:
    try:
        handler = _PrivateFile(path)
    except OSError as error:
        raise OptionError(
            "SEGMAMBA_AUDIT_LOG",
            expected="a file that this process may write",
            got=error.strerror or type(error).__name__,
            way_out="Make its folder, and let the service's user write there.",
        ) from None
    handler.setFormatter(JsonFormatter())
    return handler


def _token(value: str | None) -> Any:
    return value if value is None or _TOKEN.fullmatch(value) else "?"
