"""Versions over HTTP: which one a request means, which one ran, and whose result is known again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from model_core.errors import BundleError
from service.worker.registry import ModelRegistry
from tests.service.fakes import (
    CATALOGUE,
    FakeSegmenter,
    assert_problem,
    hired,
    installed,
    make_settings,
    running_api,
    service_of,
    study_files,
    wait_until,
)

OLD, NEW = installed("fake", "1.0.0"), installed("fake", "2.0.0", parameters=10)


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Lets a test say with ``setitem`` which versions are installed."""
    return monkeypatch


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with running_api(make_settings(max_models=3)) as client:
        yield client


class Factory:
    """Makes segmenters of the versions in turn; None cannot be loaded."""

    def __init__(self, *versions: str | None) -> None:
        self.versions = iter(versions)

    def __call__(self, name: str) -> FakeSegmenter:
        version = next(self.versions)
        if version is None:
            raise BundleError("spoilt")
        segmenter = FakeSegmenter(name)
        segmenter.card.version = version
        return segmenter


def run(client: httpx.Client, **options: str) -> tuple[bool, str]:
    """A job to its end: whether it was answered from an earlier one, and the version that ran."""
    answer = client.post("/jobs", files=study_files(), data=options)
    assert answer.status_code == 202, answer.text
    job = ended(client, answer.json()["id"])
    assert job["state"] == "succeeded", job
    result = client.get(f"/jobs/{job['id']}/result")
    assert result.headers["x-segmamba-model-version"] == job["model_version"]
    return job["cached"], job["model_version"]


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    wait_until(lambda: client.get(f"/jobs/{job_id}").json()["state"] not in ("queued", "running"))
    job: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
    return job


def states(client: httpx.Client) -> dict[str, str]:
    versions = client.get("/models/fake").json()["versions"]
    return {one["version"]: one["state"] for one in versions}


def told(client: httpx.Client, registry: ModelRegistry, **expected: str) -> None:
    """Let the worker look, and its next sign of life arrive."""
    registry.refresh()
    wanted = {version.replace("_", "."): state for version, state in expected.items()}
    wait_until(lambda: states(client) == wanted)


def test_no_result_of_the_old_version_is_given_once_the_new_one_serves(
    client: httpx.Client, catalogue: pytest.MonkeyPatch
) -> None:
    with hired(service_of(client), Factory("1.0.0", "2.0.0", "1.0.0")) as registry:
        assert [run(client), run(client)] == [(False, "1.0.0"), (True, "1.0.0")]
        catalogue.setitem(CATALOGUE, "fake", (NEW, OLD))
        registry.refresh()  # the API has not been told of it yet
        assert [run(client), run(client)] == [(False, "2.0.0"), (True, "2.0.0")]
        assert run(client, model="fake@1.0.0") == (True, "1.0.0")
        assert run(client, model="fake@1.0.0", cache="false") == (False, "1.0.0")
        assert run(client, model="fake@2.0.0") == (True, "2.0.0")


def test_a_result_is_known_as_that_of_the_version_that_really_ran(
    client: httpx.Client, catalogue: pytest.MonkeyPatch
) -> None:
    with hired(service_of(client), Factory("1.0.0", None)) as registry:
        catalogue.setitem(CATALOGUE, "fake", (NEW, OLD))
        # the API means the new version, which the worker has not looked at
        assert [run(client), run(client)] == [(False, "1.0.0"), (False, "1.0.0")]
        told(client, registry, **{"2_0_0": "broken", "1_0_0": "ready"})
        assert run(client) == (True, "1.0.0"), "now the API means the old one, and knows its result"


def test_a_version_comes_back_with_its_results(
    client: httpx.Client, catalogue: pytest.MonkeyPatch
) -> None:
    with hired(service_of(client), Factory("1.0.0", "2.0.0", "1.0.0")) as registry:
        run(client)
        for versions, expected in (((NEW, OLD), (False, "2.0.0")), ((OLD,), (True, "1.0.0"))):
            catalogue.setitem(CATALOGUE, "fake", versions)
            registry.refresh()
            assert run(client) == expected


def test_models_are_listed_with_their_versions_and_states(
    client: httpx.Client, catalogue: pytest.MonkeyPatch
) -> None:
    catalogue.setitem(CATALOGUE, "fake", (NEW, OLD))
    assert states(client) == {"2.0.0": "available", "1.0.0": "available"}
    with hired(service_of(client), Factory(None, "1.0.0")):
        wait_until(lambda: states(client) == {"2.0.0": "broken", "1.0.0": "ready"})
        entry = client.get("/models/fake").json()
        assert entry.pop("card")["version"] == "1.0.0"
        assert entry == {
            "name": "fake",
            "default": True,
            "loaded": True,
            "version": "1.0.0",
            "state": "ready",
            "memory_bytes": 4,
            "versions": [
                {"version": "2.0.0", "state": "broken", "loaded": False, "memory_bytes": 40},
                {"version": "1.0.0", "state": "ready", "loaded": True, "memory_bytes": 4},
            ],
        }
        other = client.get("/models/other").json()
        assert (other["state"], other["loaded"]) == ("available", False)
        refused = client.post("/jobs", files=study_files(), data={"model": "fake@2.0.0"})
        assert "could not" in assert_problem(refused, 422, "option")["got"]


@pytest.mark.parametrize("model", ["fake@", "fake@3", "fake@1.0.0@1.0.0", "@1.0.0", "fake@../fake"])
def test_a_version_that_is_not_installed_is_refused(client: httpx.Client, model: str) -> None:
    refused = client.post("/jobs", files=study_files(), data={"model": model})
    problem = assert_problem(refused, 422, "option")
    assert problem["field"] == "model"
    assert model not in problem["got"]


def test_a_waiting_job_for_a_version_that_goes_fails_and_one_for_the_name_does_not(
    client: httpx.Client, catalogue: pytest.MonkeyPatch
) -> None:
    exact, any_version = (
        client.post("/jobs", files=study_files(), data=data).json()
        for data in ({"model": "fake@1.0.0"}, {"model": "fake"})
    )
    assert exact["model_version"] == any_version["model_version"] == "1.0.0"
    catalogue.setitem(CATALOGUE, "fake", (NEW,))
    with hired(service_of(client), Factory("2.0.0")):
        failed = ended(client, exact["id"])
        assert failed["state"] == "failed"
        assert failed["error"]["type"] == "urn:segmamba:problem:option"
        assert "fake@1.0.0, which is not there any more" in failed["error"]["detail"]
        assert ended(client, any_version["id"])["model_version"] == "2.0.0"


def test_a_model_beyond_the_budget_fails_its_job_with_the_reason(
    catalogue: pytest.MonkeyPatch,
) -> None:
    catalogue.setitem(CATALOGUE, "other", (installed("other", parameters=10**6),))
    with (
        running_api(make_settings(models_memory_mb=1)) as client,
        hired(service_of(client), FakeSegmenter),
    ):
        refused = client.post("/segment", files=study_files(), data={"model": "other"})
        problem = assert_problem(refused, 503, "out-of-memory")
        assert problem["field"] == "model"
        assert "SEGMAMBA_MODELS_MEMORY_MB" in problem["way_out"]
        assert client.post("/segment", files=study_files()).status_code == 200


def test_an_idempotency_key_outlives_a_new_version(
    client: httpx.Client, catalogue: pytest.MonkeyPatch
) -> None:
    key = {"Idempotency-Key": "one"}
    first = client.post("/jobs", files=study_files(), headers=key)
    catalogue.setitem(CATALOGUE, "fake", (NEW, OLD))
    again = client.post("/jobs", files=study_files(), headers=key)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    other = client.post("/jobs", files=study_files(), headers=key, data={"model": "fake@2.0.0"})
    assert_problem(other, 422, "idempotency-key")
