"""One trace spans the processes of ``segmamba serve``, with attempts that were given up."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import psutil
import pytest

from tests.service.fakes import metric, wait_until
from tests.service.otlp import SeenSpan, collector
from tests.service.servers import (
    Server,
    form_files,
    head_images,
    serve_process,
    wait_ready,
    write_tiny_bundle,
)

pytestmark = pytest.mark.slow

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STAGES = {"queue", "read", "load", "preprocess", "infer", "postprocess", "measure", "write"}
LONG = {"tta": "full", "cache": "false"}


def submit(client: httpx.Client, data: dict[str, str], headers: dict[str, str]) -> str:
    images = head_images(shape=(56, 56, 56)) if data else head_images()
    answer = client.post("/jobs", files=form_files(images), data=data, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def succeeded(client: httpx.Client, job: str) -> bool:
    state = client.get(f"/jobs/{job}").json()["state"]
    assert state in ("queued", "running", "succeeded")
    return bool(state == "succeeded")


def end_worker(server: Server, number: int) -> None:
    """Send the worker a signal."""
    for child in psutil.Process(server.process.pid).children():
        if "worker" in child.cmdline()[-3:]:
            child.send_signal(number)


def test_a_trace_spans_api_and_worker_and_each_attempt_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_bundle(tmp_path / "models")
    with collector() as seen:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", seen.endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "radiology")
        with serve_process(tmp_path, data_dir=tmp_path / "data", grace_seconds=0) as server:
            client = server.client
            wait_ready(client, 240)
            first = submit(client, {}, {"traceparent": f"00-{TRACE}-{CALLER}-01"})
            wait_until(lambda: succeeded(client, first), 60)
            second = submit(client, LONG, {})
            wait_until(lambda: client.get(f"/jobs/{second}").json()["progress"]["done"] > 0, 60)
            end_worker(server, signal.SIGTERM)
            wait_until(lambda: succeeded(client, second), 240)
            check_metrics(client)
            server.stop(signal.SIGTERM, 60)
    check_one_attempt(seen.spans(), first)
    check_two_attempts(seen.spans(), second)
    assert {span.resource["service.name"] for span in seen.spans()} == {"radiology"}


def check_metrics(client: httpx.Client) -> None:
    assert metric(client, 'segmamba_job_retries_total{cause="handed-back"}') == 1
    assert metric(client, 'segmamba_jobs_ended_total{state="succeeded"}') == 2
    assert metric(client, 'segmamba_result_cache_total{outcome="miss"}') == 1
    assert metric(client, 'segmamba_result_cache_total{outcome="bypass"}') == 1
    assert metric(client, "segmamba_windows_total") > metric(
        client, "segmamba_window_seconds_count"
    ), "those of the attempt that was given up count as well"
    memory = 'segmamba_device_memory_bytes{device="cpu",kind="%s"}'
    used = metric(client, memory % "used")  # asked first: a peak never falls
    assert metric(client, memory % "peak") >= used > 50e6


def check_one_attempt(spans: list[SeenSpan], job_id: str) -> None:
    (request,) = [span for span in spans if span.parent == CALLER]
    (job,) = [span for span in spans if span.parent == request.id]
    children = [span for span in spans if span.parent == job.id]
    assert (request.name, request.trace) == ("POST /jobs", TRACE)
    assert (job.name, job.attributes["segmamba.job.id"]) == ("job", job_id)
    assert {span.name for span in children} == STAGES
    assert len(children) == len(STAGES)
    ordered = [span.name for span in children if span.name not in ("queue", "load")]
    assert ordered == ["read", "preprocess", "infer", "postprocess", "measure", "write"]
    for span in (job, *children):
        assert (span.trace, span.error) == (TRACE, None)
        assert job.start <= span.start <= span.end <= job.end
    assert job.attributes["segmamba.model"] == "tiny"
    assert job.attributes["segmamba.model.version"] == "0.0.1"
    assert job.attributes["segmamba.device"] == "cpu"
    assert job.attributes["segmamba.windows"] > 1


def check_two_attempts(spans: list[SeenSpan], job_id: str) -> None:
    mine = [span for span in spans if span.attributes.get("segmamba.job.id") == job_id]
    (request,) = [span for span in mine if span.name == "POST /jobs"]
    early, late = [span for span in mine if span.name == "job"]
    assert early.parent == late.parent == request.id
    assert early.trace == late.trace == request.trace != TRACE
    assert early.attributes["segmamba.attempt"] == 1
    assert early.attributes["segmamba.stopped"] is True
    assert late.attributes["segmamba.attempt"] == 2
    assert late.attributes["segmamba.retry"] == "handed-back"
    done = {span.name for span in spans if span.parent == late.id}
    assert done == STAGES - {"queue"}, "how long a job waited is known of its first attempt only"
    assert {span.name for span in spans if span.parent == early.id} >= {"queue", "read", "infer"}
