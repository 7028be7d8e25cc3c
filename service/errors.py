"""One table from exception class to HTTP answer, and one JSON shape for all of them.

Every refusal is an ``application/problem+json`` document (RFC 9457) with the standard members
``type``, ``title``, ``status``, ``detail`` and, where one input is at fault, the extra members
``field``, ``expected``, ``got`` and ``way_out``; ``request_id`` ties it to the log. ``detail``
never carries a file name, a path or text from an image's header.

::

    SegMambaError (model_core.errors)
    ├── InputError
    │   ├── UploadTooLargeError     the body or one image exceeds its cap                   413
    │   └── MalformedUploadError    the body is not the multipart form it claims to be      400
    └── ServiceError                the request is fine, the service cannot answer it so
        ├── NotAcceptableError      no media type in Accept can be produced                 406
        ├── UploadTimeoutError      the body took too long to arrive                        408
        ├── UnsupportedMediaError   the body is no multipart form                           415
        ├── UnknownResourceError    the address is well formed and names nothing            404
        └── UnavailableError        try again later; carries Retry-After                    503
            ├── QueueFullError      as many requests wait as may
            ├── NotReadyError       no model is loaded and warmed up yet
            └── ShuttingDownError   the process is going away
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import torch
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from model_core import errors as core
from service.observability import current_request_id, describe_exception
from service.schemas import Problem

logger = logging.getLogger("service")

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
CLIENT_CLOSED_REQUEST: Final = 499  # nginx's number; no one is left to read the answer


class UploadTooLargeError(core.InputError):
    """The body, or one image in it, is larger than the service takes."""


class MalformedUploadError(core.InputError):
    """The body is not the multipart form that its header claims."""


class ServiceError(core.SegMambaError):
    """The service cannot give this answer; the input is not to blame."""


class NotAcceptableError(ServiceError):
    """Nothing the service can produce is allowed by the Accept header."""


class UploadTimeoutError(ServiceError):
    """The body took longer to arrive than the service waits."""


class UnsupportedMediaError(ServiceError):
    """The body is of a media type that the route does not read."""


class UnknownResourceError(ServiceError):
    """The address is well formed and names nothing."""


class UnavailableError(ServiceError):
    """The service cannot answer now; ``retry_after`` seconds later it may."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFullError(UnavailableError):
    """As many requests wait as may."""


class NotReadyError(UnavailableError):
    """No model has been loaded and warmed up yet."""


class ShuttingDownError(UnavailableError):
    """The process has been asked to stop."""


@dataclass(frozen=True, kw_only=True)
class ProblemKind:
    """One row of the table: ``cause`` is the last part of the problem's type and its metric label.

    ``public`` says whether the exception's own message may be shown to the caller.
    """

    cause: str
    status: int
    title: str
    public: bool = True

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
    QueueFullError: ProblemKind(cause="queue-full", status=503, title="The queue is full"),
    NotReadyError: ProblemKind(cause="not-ready", status=503, title="The service is not ready"),
    ShuttingDownError: ProblemKind(
        cause="shutting-down", status=503, title="The service is shutting down"
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
    torch.OutOfMemoryError: ProblemKind(
        cause="out-of-memory", status=503, title="Not enough memory on the device", public=False
    ),
}
"""Exception class → answer. A class not listed takes the row of its nearest listed ancestor."""

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


def problem_response(error: BaseException) -> Response:
    """The one answer to any exception raised while serving a request."""
    kind = problem_kind(error)
    if kind.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, UnavailableError):
        logger.error("request failed", extra={"cause": kind.cause, **describe_exception(error)})
    members: dict[str, str] = {}
    if isinstance(error, core.InputError):
        members = {
            "field": error.argument,
            "expected": error.expected,
            "got": error.got,
            "way_out": error.way_out,
        }
    detail = str(error) if kind.public else "The service's log has the cause under this request id."
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, UnavailableError) else {}
    return render_problem(kind, detail, members=members, headers=headers)


def render_problem(
    kind: ProblemKind,
    detail: str,
    *,
    members: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem document with its header fields; the cause travels on for the metrics."""
    problem = Problem(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=detail,
        request_id=current_request_id(),
        **(members or {}),
    )
    response = JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=kind.status,
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type=PROBLEM_MEDIA_TYPE,
    )
    response.headers["X-Segmamba-Cause"] = kind.cause
    return response


async def _answer_error(_request: Request, error: Exception) -> Response:
    return problem_response(error)


async def _answer_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    fallback = ProblemKind(cause="http", status=error.status_code, title="The request was refused")
    kind = HTTP_KINDS.get(error.status_code, fallback)
    detail = {
        404: "No resource lives at this address; /openapi.json lists those that exist.",
        405: "This address does not take that method; the Allow header lists those it takes.",
    }.get(error.status_code, str(error.detail))
    return render_problem(kind, detail, headers=dict(error.headers or {}))


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
