"""What the running service answers to made-up requests is what its OpenAPI document says.

Schemathesis makes the requests from the document: right ones, wrong ones, and chains of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.auth.guard import Guard
from service.auth.keys import KeyStore
from tests.service.fakes import make_settings, metric, running_app, service_of

ROOT = Path(__file__).parents[2]
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_schema_conformance", "response_headers_conformance", "unsupported_method",
    "allow_header_conformance",
)  # fmt: skip


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running_app(settings=make_settings(auth="off")) as client:
        yield client


@pytest.fixture(params=["open", "with keys"])
def headers(request: pytest.FixtureRequest, client: httpx.Client) -> Iterator[dict[str, str]]:
    """What lets a request in: nothing, or a key."""
    if request.param == "open":
        yield {}
        return
    state = client.__dict__["app"].state
    before, keys = state.guard, KeyStore(service_of(client).engine.database)
    _, token = keys.create("tests", scopes=["admin"])
    state.guard = Guard("keys", keys=keys)
    client.headers["Authorization"] = f"Bearer {token}"
    yield {"Authorization": f"Bearer {token}"}
    del client.headers["Authorization"]
    state.guard = before


def test_answers_are_as_documented(
    client: httpx.Client, headers: dict[str, str], tmp_path: Path
) -> None:
    assert_conforms(client, headers, tmp_path, phases="fuzzing", examples=2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_answers_are_as_documented(
    client: httpx.Client, headers: dict[str, str], tmp_path: Path
) -> None:
    phases = "examples,coverage,fuzzing,stateful"
    segmented = 'segmamba_requests_total{method="POST",route="/segment",status="200"}'
    before = metric(client, segmented)
    assert_conforms(client, headers, tmp_path, phases=phases, examples=15)
    assert metric(client, segmented) > before, "good studies were among them"


def assert_conforms(
    client: httpx.Client, headers: dict[str, str], folder: Path, *, phases: str, examples: int
) -> None:
    """Let Schemathesis try every operation; it says what it tried, and ends with 1 on a finding."""
    address = f"{str(client.base_url).rstrip('/')}/openapi.json"
    checks = (*CHECKS, "ignored_auth") if headers else CHECKS
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", address, "--checks", ",".join(checks),
        "--phases", phases, "--max-examples", str(examples), "--generation-deterministic",
        "--suppress-health-check", "all", "--continue-on-failure", "--no-shrink", "--no-color",
        "--request-timeout", "30", "--warnings", "off",
        *(part for name, value in headers.items() for part in ("-H", f"{name}:{value}")),
    ]  # fmt: skip
    hooks = {"SCHEMATHESIS_HOOKS": "tests.hostile.good_studies"}
    path = os.pathsep.join((str(ROOT), *sys.path))
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=560, check=False, cwd=folder,
        env={**os.environ, **hooks, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    operations = sum(map(len, client.get("/openapi.json").json()["paths"].values()))
    assert f"Tested: {operations}" in done.stdout
