"""Traces: what a collector gets from a real server, and that nobody gets any without being asked.

Real processes, and attempts that are given up, are in tests/integration/test_traces.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from model_core.errors import OptionError
from service.tracing import JobSpan, check_tracing, finish_spans, request_span, tracing
from tests.service.fakes import FakeSegmenter, running_app, study_files
from tests.service.otlp import Collector, SeenSpan, collector

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = {
    "traceparent": f"00-{TRACE}-{CALLER}-01",
    "tracestate": "vendor=JANE_DOE",
    "baggage": "patient=JANE_DOE",
}
SERVER, CONSUMER = 2, 5


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that the environment names."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    with collector() as kept:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", kept.endpoint)
        monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
        yield kept


def one(seen: Collector, name: str) -> SeenSpan:
    (span,) = seen.spans(name)
    return span


def test_a_trace_leads_from_the_callers_span_to_the_stages_of_the_job(seen: Collector) -> None:
    with running_app(FakeSegmenter(windows=3)) as client:
        answer = client.post("/segment", files=study_files(), headers=SENT)
        assert answer.status_code == 200
        (worker,) = client.__dict__["app"].state.service.workers()
    request, job = one(seen, "POST /segment"), one(seen, "job")
    assert (request.trace, request.parent, request.kind) == (TRACE, CALLER, SERVER)
    assert (job.trace, job.parent, job.kind) == (TRACE, request.id, CONSUMER)
    assert request.attributes["segmamba.job.id"] == job.attributes["segmamba.job.id"]
    assert job.attributes == {
        "segmamba.job.id": request.attributes["segmamba.job.id"],
        "segmamba.model": "fake",
        "segmamba.model.version": "1.0.0",
        "segmamba.device": worker.device,
        "segmamba.attempt": 1,
        "segmamba.windows": 3,
    }
    children = [span for span in seen.spans() if span.parent == job.id]
    assert [span.name for span in children] == [
        "queue",
        "read",
        "load",
        "infer",
        "measure",
        "write",
    ]
    assert all(span.trace == TRACE and job.start <= span.start for span in children)
    assert all(span.end <= job.end for span in children)
    assert not {span.error for span in seen.spans()} - {None}
    assert request.resource["service.name"] == "segmamba"


def test_a_failure_is_marked_with_its_problem_and_without_its_text(seen: Collector) -> None:
    def fail(_number: int) -> None:
        raise OSError(2, "JANE_DOE", "/data/JANE_DOE.nii.gz")

    with running_app(FakeSegmenter(on_window=fail)) as client:
        assert client.post("/segment", files=study_files()).status_code == 500
        assert client.get("/models/JANE_DOE?born=JANE_DOE").status_code == 404
        assert client.get("/JANE_DOE?born=JANE_DOE").status_code == 404
    job, request = one(seen, "job"), one(seen, "POST /segment")
    assert (job.error, request.error) == ("urn:segmamba:problem:internal", "internal")
    assert job.attributes["error.type"] == "urn:segmamba:problem:internal"
    assert one(seen, "load").error == "urn:segmamba:problem:internal"
    assert one(seen, "GET unmatched").attributes["error.type"] == "not-found"
    assert one(seen, "GET /models/{name}").error is None
    assert b"JANE" not in b"".join(seen.bodies)
    assert seen.paths == {"/v1/traces"}, "neither logs nor metrics, which no library of ours sends"


def test_probes_and_scrapes_leave_no_span(seen: Collector) -> None:
    with running_app() as client:
        for path in ("/health/live", "/health/ready", "/metrics", "/models"):
            assert client.get(path).status_code == 200
    assert {span.name for span in seen.spans()} == {"GET /models"}


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, True),
        ({"OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_nothing_is_sent_unless_it_is_asked_for(
    seen: Collector, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], on: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with tracing():
        for traced in (True, False):
            with request_span(SENT, traced=traced) as span:
                assert span.is_recording() == (on and traced)
    assert len(seen.spans()) == on


def test_a_process_that_ends_itself_first_ends_the_spans_of_its_attempt(seen: Collector) -> None:
    lost = "urn:segmamba:problem:worker-lost"
    with tracing():
        span = JobSpan({"traceparent": SENT["traceparent"]})
        with span.current():
            span.stage("infer")
            finish_spans(lost)
            job, infer = one(seen, "job"), one(seen, "infer")
            span.stage("restore")  # the thread that hung wakes up again
            span.note(windows=1)
    assert (job.error, infer.error, infer.parent) == (lost, lost, job.id)
    assert (job.trace, job.parent) == (TRACE, CALLER)
    assert one(seen, "job") == job, "and is not ended twice"


def test_a_collector_that_is_away_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with running_app() as client:
        assert client.post("/segment", files=study_files()).status_code == 200


def test_an_endpoint_without_the_libraries_is_an_error_that_says_what_to_install(
    seen: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_tracing()
    module = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(OptionError, match=r"segmamba-service\[otel\]") as raised:
        check_tracing()
    assert raised.value.argument == "OTEL_EXPORTER_OTLP_ENDPOINT"


def test_another_protocol_is_refused(seen: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(OptionError, match="OTEL_EXPORTER_OTLP_PROTOCOL"):
        check_tracing()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    check_tracing()
