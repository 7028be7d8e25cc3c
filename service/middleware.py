"""The outermost layer of the application: request id, log line, metrics, and the last resort.

It is plain ASGI: nothing is buffered, and the route can still hear that the caller went away.
"""

from __future__ import annotations

import logging
from typing import Final

from opentelemetry.trace import Span
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import ServiceMetrics
from service.observability import Stopwatch, adopt_request_id, current_job_id
from service.problems import CLIENT_CLOSED_REQUEST, problem_response
from service.tracing import end_request, request_span

logger = logging.getLogger("service.request")

UNMATCHED_ROUTE: Final = "unmatched"
_UNTRACED: Final = ("/health/", "/metrics")
"""Asked every few seconds by machines, and about no job."""
_KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ObservingMiddleware:
    """Gives every request an id, counts it, logs it, and answers what no handler foresaw."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any kind; only HTTP requests are observed."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        watch, headers = Stopwatch(), Headers(scope=scope)
        answer = _Answer(send, adopt_request_id(headers.get("x-request-id")))
        with request_span(headers, traced=not scope["path"].startswith(_UNTRACED)) as span:
            try:
                await self.app(scope, receive, answer.send)
            except Exception as error:  # noqa: BLE001 - the last resort; the log gets its type
                response = problem_response(error)
                if not answer.started:
                    await response(scope, receive, answer.send)
            finally:
                self._record(scope, answer, watch.seconds(), span)

    def _record(self, scope: Scope, answer: _Answer, seconds: float, span: Span) -> None:
        route = getattr(scope.get("route"), "path", UNMATCHED_ROUTE)
        method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
        end_request(
            span,
            method=method,
            route=route,
            status=answer.status,
            cause=answer.cause,
            job=current_job_id(),
        )
        self.metrics.observe_request(route, method, answer.status, seconds)
        if answer.cause is not None:
            self.metrics.errors.labels(answer.cause).inc()
        logger.info(
            "request",
            extra={
                "route": route,
                "method": method,
                "status": answer.status,
                "seconds": round(seconds, 4),
                **({"cause": answer.cause} if answer.cause else {}),
            },
        )


class _Answer:
    """Sends an answer on, noting its status and cause, with the request id in its head."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = CLIENT_CLOSED_REQUEST
        self.cause: str | None = None
        self.started = False

    async def send(self, message: Message) -> None:
        """Pass one ASGI message on."""
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            self.cause = headers.get("x-segmamba-cause")
            headers["X-Request-ID"] = self._request_id
            headers["X-Content-Type-Options"] = "nosniff"
        await self._send(message)
