"""While PostgreSQL is away the API says so at every door, and goes on by itself afterwards."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.service.fakes import (
    assert_problem,
    make_settings,
    running_api,
    service_of,
    study_files,
    wait_until,
)
from tests.service.jobs.postgres import Cluster

pytestmark = pytest.mark.slow

KEY = {"Idempotency-Key": "one-and-only"}


def test_every_door_says_when_to_come_back_and_none_breaks(
    cluster: Cluster, tmp_path: Path
) -> None:
    settings = make_settings(data_dir=tmp_path, jobs_url=cluster.new_database())
    with running_api(settings) as client:
        job = client.post("/jobs", files=study_files(), data={"batch": "b"}).json()["links"]
        cluster.stop("immediate")
        try:
            _all_say_so(client, job)
            assert client.get("/health/live").status_code == 200
            assert client.get("/metrics").status_code == 200
        finally:
            cluster.start()
        wait_until(lambda: client.get(job["self"]).status_code == 200)
        again = client.post("/jobs", files=study_files(), headers=KEY)
        assert again.status_code == 202
        assert len(client.get("/jobs").json()["jobs"]) == 2
        kept = service_of(client).blobs
        assert kept.exists(f"inputs/{_upload(client, again.json()['id'])}/t1")


def _all_say_so(client: httpx.Client, job: dict[str, str]) -> None:
    calls = [
        ("GET", "/jobs"), ("GET", job["self"]), ("GET", job["events"]), ("GET", job["result"]),
        ("POST", f"{job['self']}/cancel"), ("DELETE", job["self"]), ("GET", "/batches/b"),
        ("DELETE", "/batches/b"), ("GET", "/health/ready"), ("GET", "/models"),
    ]  # fmt: skip
    for method, path in calls:
        _says_so(client.request(method, path))
    for path in ("/jobs", "/segment"):
        _says_so(client.post(path, files=study_files(), headers=KEY))


def _says_so(response: httpx.Response) -> None:
    problem = assert_problem(response, 503, "database")
    assert int(response.headers["retry-after"]) >= 1
    assert "postgres" not in str(problem).lower(), "nothing of the driver's words"


def _upload(client: httpx.Client, job_id: str) -> str:
    found = service_of(client).engine.get(job_id)
    assert found is not None
    return str(found.spec["upload"])
