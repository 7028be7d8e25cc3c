"""Logs are JSON, tied to the request, and free of anything that a patient's file brought."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from service.observability import JsonFormatter, describe_exception
from tests.service.fakes import (
    PNG,
    FakeSegmenter,
    image_bytes,
    running_app,
    study_files,
    wait_until,
)

UUID_HEX = r"[0-9a-f]{32}"


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Every record of the process, formatted as the service formats it."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, root = Keep(), logging.getLogger()
    handler.setFormatter(JsonFormatter())
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.setLevel(before)
    root.removeHandler(handler)


def test_a_harmless_request_id_is_adopted(small: httpx.Client) -> None:
    response = small.get("/health/live", headers={"X-Request-ID": "run-7.b"})
    assert response.headers["x-request-id"] == "run-7.b"


@pytest.mark.parametrize("offered", ["", "x" * 65, "a b", "a\tb", '{"x":1}', "é".encode()])
def test_another_request_id_is_replaced(small: httpx.Client, offered: str | bytes) -> None:
    response = small.get("/health/live", headers=[("X-Request-ID", offered)])
    made = response.headers["x-request-id"]
    assert len(made) == 32
    assert int(made, 16) >= 0


def test_each_request_is_one_line_with_its_route_and_no_path(log: list[str]) -> None:
    with running_app() as client:
        client.get("/models/JANE_DOE?born=1970", headers={"X-Request-ID": "abc"})
        client.get("/JANE_DOE", headers={"X-Request-ID": "def"})
    lines = {line["request_id"]: line for line in map(json.loads, log) if "route" in line}
    assert lines["abc"]["route"] == "/models/{name}"
    assert (lines["abc"]["status"], lines["abc"]["cause"]) == (404, "not-found")
    assert lines["def"]["route"] == "unmatched"
    assert "JANE" not in "".join(
        line for line in log if '"httpx"' not in line and "httpcore" not in line
    )


@pytest.mark.parametrize("bad", [False, True])
def test_no_log_line_and_no_answer_repeats_a_file_name(log: list[str], bad: bool) -> None:
    def fail(_number: int) -> None:
        if bad:
            raise OSError(2, "JANE_DOE", "/data/JANE_DOE.nii.gz")

    with running_app(FakeSegmenter(on_window=fail)) as client:
        answers = [
            client.post("/segment", files=study_files()),
            client.post("/segment", files=study_files(t2=PNG)),
            client.post("/segment", files=study_files(), data={"tta": "JANE_DOE"}),
            client.post("/segment", files=study_files(), data={"model": "JANE_DOE"}),
            client.post("/segment", files=[*study_files(), ("JANE_DOE", b"x")]),
        ]
        exposition = client.get("/metrics").text
    for text in (*log, exposition, *(a.text + repr(a.headers) for a in answers)):
        assert "JANE" not in text


def test_lines_about_a_job_name_it_with_the_request_and_the_trace(log: list[str]) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "X-Request-ID": "run-8"}
    with running_app() as client:
        job = client.post("/jobs", files=study_files(t1=PNG), headers=headers).json()["id"]
        wait_until(lambda: client.get(f"/jobs/{job}").json()["state"] == "failed")
        client.get("/jobs/JANE_DOE")
    lines = [line for line in map(json.loads, log) if line["logger"].startswith("service")]
    mine = {(line["logger"], line["event"]) for line in lines if line.get("job") == job}
    assert mine >= {("service.request", "request"), ("service.audit", "audit")}
    taken = next(line for line in lines if line.get("route") == "/jobs")
    assert (taken["job"], taken["request_id"], taken["trace_id"]) == (job, "run-8", trace)
    worked = next(line for line in lines if line["event"] == "a study was refused")
    assert (worked["job"], worked["trace_id"]) == (job, trace)
    unknown = next(line for line in lines if line.get("cause") == "not-found")
    assert "job" not in unknown


def test_warnings_and_uncaught_exceptions_are_lines_without_their_texts() -> None:
    script = """
import threading, warnings
from service.observability import configure_logging
configure_logging("info")
def fail(): raise ValueError("JANE_DOE")
warnings.warn("JANE_DOE")
thread = threading.Thread(target=fail); thread.start(); thread.join()
fail()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["exception"] for line in lines] == ["UserWarning", "ValueError", "ValueError"]
    assert "JANE" not in done.stderr


def test_an_exception_is_described_without_its_message() -> None:
    try:
        raise ValueError("JANE_DOE")
    except ValueError as error:
        described = describe_exception(error)
    assert described["exception"] == "ValueError"
    assert "test_observability.py" in described["at"][-1]
    assert "JANE" not in json.dumps(described)


def test_a_logged_traceback_becomes_positions_without_the_message() -> None:
    try:
        raise ValueError("JANE_DOE")
    except ValueError as error:
        record = logging.LogRecord("x", 40, "f", 1, "failed %s", ("here",), None)
        record.exc_info = (ValueError, error, error.__traceback__)
    line = json.loads(JsonFormatter().format(record))
    assert (line["event"], line["exception"]) == ("failed here", "ValueError")
    assert "JANE" not in json.dumps(line)


def test_the_image_is_not_in_the_log_at_debug_level(log: list[str]) -> None:
    with running_app() as client:
        client.post("/segment", files=study_files(t1=image_bytes(3)))
    assert all(len(line) < 2000 for line in log)
