"""Jobs over HTTP: made once, followed, cancelled, read by their owner only, deleted for good."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from service.auth.guard import Guard
from service.auth.keys import KeyStore
from service.auth.principal import Limits
from tests.service.fakes import (
    FakeSegmenter,
    Gate,
    assert_problem,
    hired,
    image_bytes,
    make_settings,
    running_api,
    running_app,
    service_of,
    study_files,
    wait_until,
)

NEW = {"cache": "false"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running_app(FakeSegmenter(windows=4)) as client:
        yield client


def submit(client: httpx.Client, *, headers: dict[str, str] | None = None, **data: str) -> Any:
    response = client.post("/jobs", files=study_files(), data=data, headers=headers)
    assert response.status_code in (200, 202), response.text
    assert response.headers["location"] == response.json()["links"]["self"]
    return response.json()


def ended(client: httpx.Client, job: Any) -> Any:
    wait_until(lambda: client.get(job["links"]["self"]).json()["ended"] is not None)
    return client.get(job["links"]["self"]).json()


def test_a_job_is_answered_before_it_is_done_and_its_result_is_segments(
    client: httpx.Client,
) -> None:
    job = ended(client, submit(client, **NEW))
    assert (job["state"], job["attempts"], job["position"], job["eta_s"]) == (
        "succeeded", 1, None, None,
    )  # fmt: skip
    result = client.get(job["links"]["result"])
    again = client.post("/segment", files=study_files(), data=NEW)
    assert result.content == again.content
    assert result.headers["x-segmamba-model"] == "fake"
    report = client.get(job["links"]["result"], headers={"Accept": "application/json"}).json()
    assert report["volumes_ml"]["WT"] == 0.6


def test_prefer_respond_async_makes_a_job_of_segment(client: httpx.Client) -> None:
    headers = {"Prefer": "wait=1, respond-async"}
    response = client.post("/segment", files=study_files(), data=NEW, headers=headers)
    assert response.status_code == 202
    assert response.json()["state"] in ("queued", "running", "succeeded")


def test_events_end_with_the_job_and_resume_after_the_last_one(client: httpx.Client) -> None:
    job = submit(client, **NEW)
    with connect_sse(client, "GET", job["links"]["events"]) as source:
        events = list(source.iter_sse())
    seen = [json.loads(event.data) for event in events]
    revisions = [int(event.id) for event in events]
    assert {event.event for event in events} == {"job"}
    assert seen[-1]["state"] == "succeeded"
    assert revisions == sorted(revisions)
    assert all(state["id"] == job["id"] for state in seen)
    late = {"Last-Event-ID": str(revisions[-1])}
    with connect_sse(client, "GET", job["links"]["events"], headers=late) as source:
        assert [json.loads(event.data)["state"] for event in source.iter_sse()] == ["succeeded"]


def test_the_same_key_is_the_same_job_and_another_request_with_it_is_refused(
    client: httpx.Client,
) -> None:
    key, files = {"Idempotency-Key": "one-and-only"}, study_files()
    first = client.post("/jobs", files=files, data=NEW, headers=key)
    again = client.post("/jobs", files=files, data=NEW, headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    other = client.post("/jobs", files=study_files(t1=image_bytes(9)), data=NEW, headers=key)
    assert_problem(other, 422, "idempotency-key")
    strange = client.post("/jobs", files=study_files(), headers={"Idempotency-Key": "a b"})
    assert_problem(strange, 422, "option")


@pytest.mark.parametrize(
    ("limits", "queue", "refusal"),
    [
        (Limits(open_jobs=1), 100, (429, "too-many-jobs")),
        (Limits(storage_mb=1), 100, (507, "storage-quota")),
        (Limits(), 1, (429, "queue-full")),
    ],
    ids=["open jobs", "storage", "queue"],
)
def test_the_same_key_is_not_refused_for_the_job_that_it_has_made(
    limits: Limits, queue: int, refusal: tuple[int, str]
) -> None:
    large = study_files(t1=image_bytes(shape=(70, 60, 50)))
    with running_api(make_settings(auth="off", queue_size=queue)) as client:
        keys = KeyStore(service_of(client).engine.database)
        _, anna = keys.create("a", scopes=["segment"], limits=limits)
        client.__dict__["app"].state.guard = Guard("keys", keys=keys)
        sent = {"Authorization": f"Bearer {anna}", "Idempotency-Key": "again"}
        first, again = (client.post("/jobs", files=large, headers=sent) for _ in range(2))
        assert (first.status_code, again.status_code) == (202, 200), again.text
        assert first.json()["id"] == again.json()["id"]
        other = {**sent, "Idempotency-Key": "another"}
        assert_problem(client.post("/jobs", files=large, headers=other), *refusal)


def test_an_equal_study_is_answered_from_the_last_result(client: httpx.Client) -> None:
    images = study_files(t2=image_bytes(77))
    first = ended(client, client.post("/jobs", files=images).json())
    second = client.post("/jobs", files=images).json()
    assert (first["cached"], second["cached"], second["state"]) == (False, True, "succeeded")
    results = [client.get(job["links"]["result"]).content for job in (first, second)]
    assert results[0] == results[1]
    other = client.post("/jobs", files=images, data={"label_scheme": "brats2023"}).json()
    assert not other["cached"]


def test_a_failed_job_keeps_its_problem() -> None:
    def fail(_number: int) -> None:
        raise MemoryError

    with running_app(FakeSegmenter(on_window=fail)) as client:
        job = ended(client, submit(client))
        assert job["state"] == "failed"
        assert job["error"]["type"] == "urn:segmamba:problem:out-of-memory"
        problem = assert_problem(client.get(job["links"]["result"]), 503, "out-of-memory")
        assert problem["job"] == job["id"]


def test_a_job_whose_result_finds_the_disk_full_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_data: bytes, key: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", f"/data/{key}")

    with running_app() as client:
        monkeypatch.setattr(service_of(client).blobs, "write", full)
        job = ended(client, submit(client))
        assert (job["state"], job["error"]["status"]) == ("failed", 507)
        assert job["error"]["type"] == "urn:segmamba:problem:storage-full"
        assert "/data" not in json.dumps(job["error"])
        assert_problem(client.get(job["links"]["result"]), 507, "storage-full")


def test_every_reading_of_a_result_is_in_the_audit_log(tmp_path: Path) -> None:
    log, key = tmp_path / "audit.log", {"Idempotency-Key": "again"}
    with running_app(settings=make_settings(audit_log=log)) as client:
        answers = [client.post("/segment", files=study_files(), headers=key) for _ in range(2)]
        answers.append(client.post("/segment", files=study_files()))  # from the last result
        asynchronous = {"Prefer": "respond-async"}
        job = client.post("/segment", files=study_files(), headers=asynchronous).json()
    assert [answer.status_code for answer in answers] == [200] * 3
    acts = [json.loads(line) for line in log.read_text().splitlines()]
    assert [one["act"] for one in acts] == [*["submit", "read-result"] * 3, "submit"]
    assert all(
        read["job"] == made["job"] for made, read in zip(acts[::2], acts[1::2], strict=False)
    )
    assert acts[-1]["job"] == job["id"]


def test_a_failed_segmentation_is_no_reading_of_a_result(tmp_path: Path) -> None:
    def fail(_number: int) -> None:
        raise MemoryError

    log = tmp_path / "audit.log"
    with running_app(
        FakeSegmenter(on_window=fail), settings=make_settings(audit_log=log)
    ) as client:
        assert client.post("/segment", files=study_files()).status_code == 503
    assert [json.loads(line)["act"] for line in log.read_text().splitlines()] == ["submit"]


def test_a_waiting_job_has_a_place_and_a_running_one_stops_at_the_next_window() -> None:
    gate = Gate()
    with running_app(FakeSegmenter(windows=3, on_window=gate)) as client:
        running = submit(client)
        assert gate.entered.wait(20)
        second, third = submit(client, **NEW), submit(client, priority="high", **NEW)
        places = [client.get(job["links"]["self"]).json()["position"] for job in (second, third)]
        assert places == [2, 1]
        early = client.get(second["links"]["result"])
        assert_problem(early, 409, "not-finished")
        assert int(early.headers["retry-after"]) >= 1
        cancelled = client.delete(running["links"]["self"])
        assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
        gate.opened.set()
        assert [ended(client, job)["state"] for job in (second, third)] == ["succeeded"] * 2
        assert_problem(client.get(running["links"]["result"]), 410, "gone")


def test_the_result_of_a_job_that_is_cancelled_in_its_last_window_is_not_kept() -> None:
    gate = Gate()
    with running_app(FakeSegmenter(on_window=gate)) as client:
        results = Path(service_of(client).settings.storage_url) / "results"
        cancelled = submit(client)
        assert gate.entered.wait(20)
        assert client.delete(cancelled["links"]["self"]).status_code == 202
        gate.opened.set()
        other = ended(client, submit(client, **NEW))
        kept = {path.parent.name for path in results.rglob("*") if path.is_file()}
        assert kept == {other["id"]}


def test_images_of_a_job_that_is_cancelled_before_it_began_are_gone() -> None:
    with running_api() as client:
        inputs = Path(service_of(client).settings.storage_url) / "inputs"
        job = submit(client)
        assert len(list(inputs.iterdir())) == 1
        assert client.delete(job["links"]["self"]).status_code == 202
        assert list(inputs.iterdir()) == []


def test_cancelling_leaves_a_job_that_has_ended_with_its_result(client: httpx.Client) -> None:
    job = ended(client, submit(client, **NEW))
    again = client.post(f"{job['links']['self']}/cancel")
    assert (again.status_code, again.json()) == (200, job)
    assert client.get(job["links"]["result"]).status_code == 200
    assert_problem(client.post(f"/jobs/{'0' * 32}/cancel"), 404, "not-found")


def test_cancelling_twice_is_cancelling_once() -> None:
    with running_api() as client:
        inputs = Path(service_of(client).settings.storage_url) / "inputs"
        address = f"{submit(client)['links']['self']}/cancel"
        first, second = client.post(address), client.post(address)
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.json()["state"] == "cancelled"
        assert first.json() == second.json()
        assert list(inputs.iterdir()) == []


def test_a_deleted_job_is_gone_with_its_files(client: httpx.Client) -> None:
    job = ended(client, submit(client, **NEW))
    place = Path(service_of(client).settings.storage_url) / "results" / job["id"]
    assert list(place.iterdir())
    assert client.delete(job["links"]["self"]).status_code == 204
    assert not place.exists()
    assert_problem(client.get(job["links"]["self"]), 404, "not-found")
    assert_problem(client.get(job["links"]["events"]), 404, "not-found")


def test_deleting_a_job_leaves_its_result_to_those_that_share_it(client: httpx.Client) -> None:
    images = study_files(t2=image_bytes(78))
    first = ended(client, client.post("/jobs", files=images).json())
    second = client.post("/jobs", files=images).json()
    assert second["cached"]
    result = client.get(first["links"]["result"]).content
    assert client.delete(first["links"]["self"]).status_code == 204
    assert_problem(client.get(first["links"]["self"]), 404, "not-found")
    assert client.get(second["links"]["result"]).content == result
    assert client.delete(second["links"]["self"]).status_code == 204
    results = Path(service_of(client).settings.storage_url) / "results"
    assert not (results / first["id"]).exists()


def test_a_batch_is_counted_and_cancelled_together() -> None:
    with running_api() as client:
        for _ in range(3):
            submit(client, batch="trial-7", **NEW)
        submit(client, **NEW)
        assert client.get("/batches/trial-7").json() == {
            "batch": "trial-7", "counts": {"queued": 3}, "done": False,
        }  # fmt: skip
        assert len(client.get("/jobs", params={"batch": "trial-7"}).json()["jobs"]) == 3
        answer = client.delete("/batches/trial-7").json()
        assert answer["counts"] == {"cancelled": 3}
        assert answer["done"]
        assert_problem(client.get("/batches/other"), 404, "not-found")
        bad = client.post("/jobs", files=study_files(), data={"batch": "../x"})
        assert_problem(bad, 422, "option")


def test_pages_of_jobs_hold_each_once(client: httpx.Client) -> None:
    for _ in range(3):
        submit(client, **NEW)
    seen: list[str] = []
    address: str | None = "/jobs?limit=2"
    while address:
        page = client.get(address).json()
        seen += [job["id"] for job in page["jobs"]]
        address = page["next"]
    assert len(seen) == len(set(seen)) >= 3


def test_only_the_owner_sees_a_job_and_quotas_hold() -> None:
    with running_api(make_settings(auth="off")) as client:
        keys = KeyStore(service_of(client).engine.database)
        _, anna = keys.create("a", scopes=["segment"], limits=Limits(open_jobs=1))
        _, ben = keys.create("b", scopes=["segment"])
        _, root = keys.create("c", scopes=["admin"])
        client.__dict__["app"].state.guard = Guard("keys", keys=keys)
        sent = {name: {"Authorization": f"Bearer {key}"} for name, key in
                (("anna", anna), ("ben", ben), ("root", root))}  # fmt: skip
        assert_problem(client.post("/jobs", files=study_files()), 401, "unauthenticated")
        job = submit(client, headers=sent["anna"])
        address = job["links"]["self"]
        assert client.get(address, headers=sent["anna"]).status_code == 200
        assert client.get(address, headers=sent["root"]).status_code == 200
        for part in ("", "/events", "/result"):
            assert_problem(client.get(address + part, headers=sent["ben"]), 404, "not-found")
        assert_problem(client.delete(address, headers=sent["ben"]), 404, "not-found")
        assert client.get("/jobs", headers=sent["ben"]).json()["jobs"] == []
        full = client.post("/jobs", files=study_files(), data=NEW, headers=sent["anna"])
        assert_problem(full, 429, "too-many-jobs")


def test_a_job_survives_its_api(tmp_path: Path) -> None:
    settings = make_settings(data_dir=tmp_path)
    with running_api(settings) as client:
        job = submit(client)
    with running_api(settings) as client:
        assert client.get(job["links"]["self"]).json()["state"] == "queued"
        with hired(service_of(client), lambda _: FakeSegmenter()):
            assert ended(client, job)["state"] == "succeeded"
        assert client.get(job["links"]["result"]).status_code == 200
