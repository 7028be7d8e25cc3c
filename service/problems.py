"""One table from exception class to HTTP answer, and one JSON shape for all of them.

Every refusal is an ``application/problem+json`` document (RFC 9457) with the standard members
``type``, ``title``, ``status``, ``detail`` and, where one input is at fault, the extra members
``field``, ``expected``, ``got`` and ``way_out``; ``request_id`` ties it to the log. ``detail``
never carries a file name, a path or text from an image's header.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from model_core import errors as core
from service.dicomweb.errors import (
    ArchiveError,
    ArchiveUnreachable,
    StudyNotFoundError,
    StudyTooLargeError,
)
from service.errors import (
    AuthUnavailableError,
    ForbiddenError,
    ForeignHostError,
    ForeignOriginError,
    GoneError,
    KeyReusedError,
    MalformedUploadError,
    NotAcceptableError,
    NotFinishedError,
    NotReadyError,
    QueueFullError,
    ShuttingDownError,
    StorageFullError,
    StorageQuotaError,
    TooManyJobsError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnavailableError,
    UnknownResourceError,
    UnsupportedMediaError,
    UploadTimeoutError,
    UploadTooLargeError,
)
from service.jobs.blobs import StorageUnreachableError
from service.jobs.database import UNREACHABLE
from service.observability import current_request_id, describe_exception
from service.schemas import Problem

logger = logging.getLogger("service")

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CLIENT_CLOSED_REQUEST: Final = 499  # nginx's number; no one is left to read the answer
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_BACK_SOON: Final = {"Retry-After": "5"}
"""From what restarts or is restarted."""


@dataclass(frozen=True, kw_only=True)
class ProblemKind:
    """One row of the table: ``cause`` is the last part of the problem's type and its metric label.

    ``public`` says whether the exception's own message may be shown to the caller, ``headers`` are
    those of every such answer.
    """

    cause: str
    status: int
    title: str
    public: bool = True
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def type(self) -> str:
        """The problem's identifier, a URN: stable, and not meant to be dereferenced."""
        return f"urn:segmamba:problem:{self.cause}"


INTERNAL: Final = ProblemKind(
    cause="internal", status=500, title="The service failed", public=False
)

PROBLEM_TABLE: Final[dict[type[BaseException], ProblemKind]] = {
    UploadTooLargeError: ProblemKind(
        cause="upload-too-large", status=413, title="The upload is too large"
    ),
    MalformedUploadError: ProblemKind(
        cause="malformed-upload", status=400, title="The form cannot be read"
    ),
    UnauthenticatedError: ProblemKind(
        cause="unauthenticated",
        status=401,
        title="A valid credential is needed",
        headers={"WWW-Authenticate": "Bearer"},
    ),
    ForbiddenError: ProblemKind(
        cause="forbidden", status=403, title="The credential does not allow this"
    ),
    ForeignOriginError: ProblemKind(
        cause="foreign-origin", status=403, title="Another site may not act here"
    ),
    ForeignHostError: ProblemKind(
        cause="foreign-host", status=421, title="This service has another name"
    ),
    NotAcceptableError: ProblemKind(
        cause="not-acceptable", status=406, title="No acceptable media type"
    ),
    UploadTimeoutError: ProblemKind(
        cause="upload-timeout", status=408, title="The upload was too slow"
    ),
    UnsupportedMediaError: ProblemKind(
        cause="unsupported-media-type", status=415, title="The body is no multipart form"
    ),
    UnknownResourceError: ProblemKind(
        cause="not-found", status=404, title="There is no such resource"
    ),
    QueueFullError: ProblemKind(cause="queue-full", status=429, title="The queue is full"),
    TooManyRequestsError: ProblemKind(cause="rate-limited", status=429, title="Too many requests"),
    TooManyJobsError: ProblemKind(cause="too-many-jobs", status=429, title="Too many open jobs"),
    AuthUnavailableError: ProblemKind(
        cause="auth-unavailable", status=503, title="Credentials cannot be checked"
    ),
    StorageFullError: ProblemKind(
        cause="storage-full", status=507, title="There is no room for the job's files"
    ),
    StorageQuotaError: ProblemKind(
        cause="storage-quota", status=507, title="The caller's share of the storage is full"
    ),
    StorageUnreachableError: ProblemKind(
        cause="storage",
        status=503,
        title="The storage of the images does not answer",
        public=False,
        headers=_BACK_SOON,
    ),
    NotFinishedError: ProblemKind(
        cause="not-finished", status=409, title="The job has not ended yet"
    ),
    GoneError: ProblemKind(cause="gone", status=410, title="There is no result any more"),
    KeyReusedError: ProblemKind(
        cause="idempotency-key", status=422, title="The key belongs to another request"
    ),
    NotReadyError: ProblemKind(cause="not-ready", status=503, title="The service is not ready"),
    ShuttingDownError: ProblemKind(
        cause="shutting-down", status=503, title="The service is shutting down"
    ),
    StudyNotFoundError: ProblemKind(
        cause="study-not-found", status=404, title="The archive has no such study"
    ),
    StudyTooLargeError: ProblemKind(
        cause="study-too-large", status=413, title="The study in the archive is too large"
    ),
    ArchiveError: ProblemKind(
        cause="archive", status=502, title="The archive did not do what was asked"
    ),
    ArchiveUnreachable: ProblemKind(
        cause="archive-unreachable", status=504, title="The archive does not answer"
    ),
    core.ImageError: ProblemKind(cause="image", status=422, title="An image cannot be used"),
    core.StudyError: ProblemKind(
        cause="study", status=422, title="The images do not make one study"
    ),
    core.OptionError: ProblemKind(
        cause="option", status=422, title="An option is outside its allowed values"
    ),
    core.MemoryLimitError: ProblemKind(
        cause="out-of-memory", status=503, title="More memory is needed than may be used"
    ),
    core.InputError: ProblemKind(cause="input", status=422, title="The input cannot be used"),
    core.ShapeError: ProblemKind(
        cause="shape", status=422, title="The network cannot take this shape"
    ),
    core.NumericalError: ProblemKind(
        cause="numerical", status=500, title="The network's output is not finite"
    ),
    core.CheckpointError: ProblemKind(
        cause="model", status=500, title="The model cannot be used", public=False
    ),
    core.BackendError: ProblemKind(
        cause="backend", status=500, title="The scan backend cannot run here", public=False
    ),
    core.KernelMemoryError: ProblemKind(
        cause="out-of-memory", status=503, title="Not enough memory", public=False
    ),
    core.Cancelled: ProblemKind(
        cause="cancelled", status=503, title="The segmentation was stopped"
    ),
    ClientDisconnect: ProblemKind(
        cause="client-disconnected",
        status=CLIENT_CLOSED_REQUEST,
        title="The caller went away",
        public=False,
    ),
    MemoryError: ProblemKind(
        cause="out-of-memory", status=503, title="Not enough memory", public=False
    ),
    **dict.fromkeys(
        UNREACHABLE,
        ProblemKind(
            cause="database",
            status=503,
            title="The job database does not answer",
            public=False,
            headers=_BACK_SOON,
        ),
    ),
}
"""Exception class → answer. A class not listed takes the row of its nearest listed ancestor."""

WORKER_LOST: Final = ProblemKind(
    cause="worker-lost", status=500, title="The worker was lost with this job, again and again"
)
"""What a job ends with that killed or stopped its workers too often; no exception stands for it."""

HTTP_KINDS: Final[dict[int, ProblemKind]] = {
    404: PROBLEM_TABLE[UnknownResourceError],
    405: ProblemKind(cause="method-not-allowed", status=405, title="The method is not allowed"),
}


def problem_kind(error: BaseException) -> ProblemKind:
    """The row of the table that speaks for this exception."""
    for ancestor in type(error).__mro__:
        if ancestor in PROBLEM_TABLE:
            return PROBLEM_TABLE[ancestor]
    return INTERNAL


def problem_document(error: BaseException) -> dict[str, Any]:
    """The problem as plain JSON, as a job keeps it; a fault of ours is logged, not told."""
    fault, error = error, _told_apart(error)
    kind = problem_kind(error)
    if kind.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(fault, UnavailableError):
        logger.error("request failed", extra={"cause": kind.cause, **describe_exception(fault)})
    detail = str(error) if kind.public else "The service's log has the cause under this id."
    problem = Problem(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=detail,
        request_id=current_request_id(),
        **_parts(error),
    )
    return problem.model_dump(exclude_none=True)


def problem_response(error: BaseException) -> Response:
    """The one answer to any exception raised while serving a request."""
    document, error = problem_document(error), _told_apart(error)
    later = {"Retry-After": str(error.retry_after)} if isinstance(error, UnavailableError) else {}
    headers = {**problem_kind(error).headers, **later}
    return answer_problem(document, headers=headers)


def answer_problem(
    problem: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """A problem document as an answer; its cause travels on for the metrics."""
    response = JSONResponse(
        dict(problem),
        status_code=problem["status"],
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type=PROBLEM_MEDIA_TYPE,
    )
    response.headers["X-Segmamba-Cause"] = str(problem["type"]).rsplit(":", 1)[-1]
    return response


def answer_failed(problem: Mapping[str, Any], job_id: str) -> Response:
    """The problem that a job ended with, as the answer to this request."""
    return answer_problem({**problem, "request_id": current_request_id(), "job": job_id})


def _told_apart(error: BaseException) -> BaseException:
    """What the system says where the disk is full, in the words of our own error."""
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return StorageFullError()
    return error


def _parts(error: BaseException) -> dict[str, str]:
    if not isinstance(error, core.InputError):
        return {}
    return {
        "field": error.argument,
        "expected": error.expected,
        "got": error.got,
        "way_out": error.way_out,
    }


def render_problem(
    kind: ProblemKind, detail: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    """A problem that no exception of ours stands for."""
    problem = Problem(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=detail,
        request_id=current_request_id(),
    )
    return answer_problem(problem.model_dump(exclude_none=True), headers=headers)


async def _answer_error(_request: Request, error: Exception) -> Response:
    return problem_response(error)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    fallback = ProblemKind(cause="http", status=error.status_code, title="The request was refused")
    kind = HTTP_KINDS.get(error.status_code, fallback)
    detail = {
        404: "No resource lives at this address; /openapi.json lists those that exist.",
        405: "This address does not take that method; the Allow header lists those it takes.",
    }.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_at(request))
    return render_problem(kind, detail, headers=headers)


def _methods_at(request: Request) -> Iterator[str]:
    """Those that an address takes; its router would name those of one route only."""
    for method in _METHODS:
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            yield method


async def _answer_validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return problem_response(
        core.OptionError(
            field,
            expected=str(first["msg"]),
            got=type(first.get("input")).__name__,
            way_out="See /openapi.json for the accepted values.",
        )
    )


def install_error_handlers(app: FastAPI) -> None:
    """Bind the table to an application; unexpected exceptions are met by the outer middleware."""
    for kind in PROBLEM_TABLE:
        if issubclass(kind, Exception):
            app.add_exception_handler(kind, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
