"""A collector small enough for a test: it takes traces over OTLP/HTTP and keeps them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True, kw_only=True)
class SeenSpan:
    """A span as it arrived; ids in hex, times in nanoseconds since 1970."""

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    start: int
    end: int
    error: str | None
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """What came, and where to send it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()
        self.endpoint = ""

    def take(self, path: str, body: bytes) -> None:
        self.paths.add(path)
        self.bodies.append(body)

    def spans(self, name: str | None = None) -> list[SeenSpan]:
        """All spans so far, or those of a name, by their beginning."""
        found = [span for body in tuple(self.bodies) for span in _spans_of(body)]
        return sorted((s for s in found if name in (None, s.name)), key=lambda span: span.start)


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector that listens on a free port."""
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers.get("Content-Encoding") == "gzip"
            kept.take(self.path, gzip.decompress(body) if packed else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield kept
        server.shutdown()
        thread.join(10)


def _spans_of(body: bytes) -> Iterator[SeenSpan]:
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _plain(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield SeenSpan(
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    name=span.name,
                    kind=span.kind,
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    error=span.status.message if span.status.code == 2 else None,
                    attributes=_plain(span.attributes),
                    resource=resource,
                )


def _plain(attributes: Any) -> dict[str, Any]:
    return {
        one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value")
        for one in attributes
    }
