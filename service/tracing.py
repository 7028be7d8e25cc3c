"""Traces: from the request that brings a study, through the queue, to the end of its job.

::

    POST /jobs                      the API's span, below the caller's own if it sent a traceparent
    └── job                         one for each attempt, from a worker
        ├── queue                   of the first attempt: until it began
        ├── read · load · preprocess · infer · postprocess · measure · write

Off, and free of cost, unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` or its ``…_TRACES_…`` form is set;
this and all else is configured by OpenTelemetry's own variables. The tracer is this project's own
and not the process's global one, so that no library traces what it likes. A span has a route and
never an address, ids of ours, names of models, numbers and causes; of a caller's headers only the
trace id and the parent are taken.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from model_core.errors import OptionError
from service.version import release

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_TRACEPARENT: Final = "traceparent"
_STAGES: Final[Mapping[str, str]] = {
    "prepare": "preprocess", "restore": "postprocess", "encode": "write",
}  # fmt: skip
"""Names of spans where they differ from those of the work's own steps."""
_W3C: Final = TraceContextTextMapPropagator()
_tracer: trace.Tracer = trace.NoOpTracer()
_provider: TracerProvider | None = None


@contextmanager
def tracing() -> Iterator[None]:
    """Trace in this process for as long as it lasts, if the environment asks for it.

    Raises:
        OptionError: as `check_tracing`.
    """
    global _tracer, _provider  # like logging, one for the process
    if not _wanted():
        yield
        return
    before = _tracer, _provider
    _provider = provider = _made_provider()
    _tracer = provider.get_tracer("segmamba", release())
    try:
        yield
    finally:
        finish_spans()
        _tracer, _provider = before
        provider.shutdown()


def finish_spans(problem_type: str | None = None) -> None:
    """End the spans of attempts that this process will not finish, and send what is not sent.

    Args:
        problem_type: why; None: they were told to stop.
    """
    for span in tuple(_open):
        if problem_type is None:
            span.note(stopped=True)
        else:
            span.fail(problem_type)
        span.end()
    if _provider is not None:
        _provider.force_flush()


def check_tracing() -> None:
    """Find out before a start whether tracing can do what the environment asks for.

    Raises:
        OptionError: the libraries are missing, or the protocol is not the one that is spoken.
    """
    if _wanted():
        _exporter()


@contextmanager
def request_span(headers: Mapping[str, str], *, traced: bool = True) -> Iterator[Span]:
    """The span of one request; `end_request` names it, for its route is not known yet."""
    if not traced:
        # an earlier request on the connection may have left its own in the context
        with trace.use_span(trace.INVALID_SPAN):
            yield trace.INVALID_SPAN
        return
    with _tracer.start_as_current_span(
        "request",
        context=_caller(headers),
        kind=SpanKind.SERVER,
        record_exception=False,  # its message may quote anything
        set_status_on_exception=False,
    ) as span:
        yield span


def end_request(
    span: Span, *, method: str, route: str, status: int, cause: str | None, job: str | None
) -> None:
    """Tell how a request was answered."""
    span.update_name(f"{method} {route}")
    span.set_attributes(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
        }
    )
    if job is not None:
        span.set_attribute("segmamba.job.id", job)
    if cause is not None:
        span.set_attribute("error.type", cause)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR, cause))


def carried() -> dict[str, str]:
    """What a job's spec carries to its worker: ``traceparent``, or nothing."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return {name: value for name, value in carrier.items() if name == _TRACEPARENT}


class JobSpan:
    """The span of one attempt at a job, with a child for each stage of the work.

    Args:
        spec: of the job, with what `carried` gave.
        queued: when the job came and when the attempt began, in milliseconds since 1970; with it
            the span begins when the job came.
    """

    def __init__(self, spec: Mapping[str, Any], *, queued: tuple[int, int] | None = None) -> None:
        came, began = (None, None) if queued is None else (1_000_000 * ms for ms in queued)
        self._span = _tracer.start_span(
            "job", _caller(spec), kind=SpanKind.CONSUMER, start_time=came
        )
        self._inside = trace.set_span_in_context(self._span)
        self._stage: Span | None = None
        self._name = ""
        if queued is not None:
            _tracer.start_span("queue", self._inside, start_time=came).end(began)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Be the span of what happens inside, and end with it."""
        _open.add(self)
        try:
            with trace.use_span(self._span, record_exception=False, set_status_on_exception=False):
                yield
        finally:
            self.end()

    def stage(self, step: str) -> None:
        """Another step of the work begins, or goes on."""
        name = _STAGES.get(step, step)
        if name != self._name:
            self._end_stage()
            self._name, self._stage = name, _tracer.start_span(name, self._inside)

    def note(self, **attributes: str | int) -> None:
        """Add attributes; they get the prefix ``segmamba.``."""
        if self._span.is_recording():  # it may have been ended from outside
            self._span.set_attributes({f"segmamba.{name}": it for name, it in attributes.items()})

    def fail(self, problem_type: str) -> None:
        """Mark the attempt, and the stage that it was in, as failed."""
        for span in (self._span, self._stage):
            if span is not None and span.is_recording():
                span.set_attribute("error.type", problem_type)
                span.set_status(Status(StatusCode.ERROR, problem_type))

    def end(self) -> None:
        """End it with the stage that it is in, if that has not happened."""
        _open.discard(self)
        self._end_stage()
        if self._span.is_recording():
            self._span.end()

    def _end_stage(self) -> None:
        if self._stage is not None and self._stage.is_recording():
            self._stage.end()
        self._name, self._stage = "", None


_open: Final[set[JobSpan]] = set()


def _caller(said: Mapping[str, Any]) -> Context:
    """The span that headers or a spec name; no tracestate, no baggage: the caller's own texts."""
    return _W3C.extract({_TRACEPARENT: str(said.get(_TRACEPARENT, ""))})


def _wanted() -> bool:
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    off = off or os.environ.get("OTEL_TRACES_EXPORTER", "").lower() == "none"
    return not off and any(os.environ.get(name) for name in ENDPOINTS)


def _made_provider() -> TracerProvider:
    """The SDK's provider, as the environment describes it."""
    exporter = _exporter()
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource.create({"service.name": "segmamba", "service.version": release()})
    # shut down by `tracing`: a worker ends by _exit, an API by the signal that ended it
    provider = TracerProvider(
        resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(exporter()))
    return provider


def _exporter() -> type[OTLPSpanExporter]:
    spoken = next((name for name in _PROTOCOLS if os.environ.get(name)), None)
    if spoken and os.environ[spoken] != _PROTOCOL:
        raise OptionError(
            spoken,
            expected=_PROTOCOL,
            got="another protocol",
            way_out="Unset it, and name the collector's port for HTTP (4318 as a rule).",
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError:
        raise OptionError(
            next(name for name in ENDPOINTS if os.environ.get(name)),
            expected="to be set only where OpenTelemetry's SDK and its OTLP exporter are installed",
            got="a place to send traces to, and no package that does",
            way_out="Install segmamba-service[otel], or unset the variable.",
        ) from None
    return OTLPSpanExporter
