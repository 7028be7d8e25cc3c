"""What the counters count, and that an exposition has each family and each series once."""

from __future__ import annotations

from collections import Counter

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from service.jobs.executor import HUNG_EXIT
from service.jobs.records import HANDED_BACK, RetryCause, Worker, retry_cause
from service.metrics import RunMetrics
from service.supervisor import describe_end
from service.worker.memory import device_memory
from tests.service.fakes import (
    PNG,
    FakeSegmenter,
    Gate,
    metric,
    running_app,
    service_of,
    study_files,
    wait_until,
)


def ended(client: httpx.Client, state: str) -> float:
    return metric(client, f'segmamba_jobs_ended_total{{state="{state}"}}')


def cache(client: httpx.Client) -> tuple[float, float, float]:
    hit, miss, bypass = (
        metric(client, f'segmamba_result_cache_total{{outcome="{outcome}"}}')
        for outcome in ("hit", "miss", "bypass")
    )
    return hit, miss, bypass


def test_known_results_ended_jobs_and_windows_are_counted() -> None:
    with running_app(FakeSegmenter(windows=4)) as client:
        for data in ({}, {}, {"cache": "false"}):
            client.post("/segment", files=study_files(), data=data)
        key = {"Idempotency-Key": "once"}
        for _ in range(2):  # the second one makes no job
            client.post("/segment", files=study_files(), headers=key)
        assert cache(client) == (2, 1, 1)
        assert client.post("/segment", files=study_files(t2=PNG)).status_code == 422
        wait_until(lambda: ended(client, "failed") == 1)
        assert ended(client, "succeeded") == 2, "an answer from an earlier result ends no job"
        assert metric(client, "segmamba_windows_total") == 8


def test_windows_are_counted_while_they_go_and_a_cancelled_job_once() -> None:
    gate = Gate()

    def wait(number: int) -> None:
        if number == 2:
            gate(number)

    with running_app(FakeSegmenter(windows=4, on_window=wait)) as client:
        job = client.post("/jobs", files=study_files()).json()["links"]["self"]
        assert gate.entered.wait(20)
        assert metric(client, "segmamba_windows_total") == 2
        assert client.delete(job).status_code == 202
        gate.opened.set()
        assert client.delete(job).status_code == 204
        assert ended(client, "cancelled") == 1
        assert ended(client, "succeeded") == 0


def test_an_exposition_has_each_family_and_each_series_once() -> None:
    with running_app() as client:
        client.post("/segment", files=study_files())
        client.delete(client.post("/jobs", files=study_files()).json()["links"]["self"])
        # a second worker on this machine, as the files of another process would show it
        other = CollectorRegistry()
        RunMetrics(other).jobs_ended.labels("failed").inc()
        service_of(client).metrics.shared.append(other)
        text = client.get("/metrics").text
    types = Counter(line.split()[2] for line in text.splitlines() if line.startswith("# TYPE"))
    assert set(types.values()) == {1}
    families = {family.name: family for family in text_string_to_metric_families(text)}
    states = {s.labels["state"] for s in families["segmamba_jobs_ended"].samples}
    assert states >= {"succeeded", "failed"}


def test_memory_is_summed_over_the_workers_of_a_device() -> None:
    with running_app() as client:
        store = service_of(client).engine.store
        held = {"used": 10, "reserved": 30, "peak": 20}
        for name, device in (("a", "cuda:0"), ("b", "cuda:0"), ("c", "cuda:1")):
            facts = {"device_memory": held}
            store.beat(Worker(id=name, device=device, state="ready", facts=facts, job=None, seen=0))
        sample = 'segmamba_device_memory_bytes{device="%s",kind="%s"}'
        assert [metric(client, sample % ("cuda:0", kind)) for kind in held] == [20, 60, 40]
        assert [metric(client, sample % ("cuda:1", kind)) for kind in held] == [10, 30, 20]


def test_on_a_cpu_the_memory_is_the_processs() -> None:
    ballast = b"x" * 64_000_000
    now = device_memory("cpu")
    assert now["peak"] >= now["used"] > len(ballast)
    del ballast
    assert device_memory("cpu")["peak"] >= now["peak"] - 2**20


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_devices() -> None:
    import torch

    before = device_memory("cuda:0")
    ballast = torch.ones(2**20, device="cuda:0")
    during = device_memory("cuda:0")
    assert during["used"] - before["used"] == ballast.nbytes
    del ballast
    after = device_memory("cuda:0")
    assert after["used"] == before["used"]
    assert after["peak"] >= during["used"]
    assert after["reserved"] >= after["used"]


@pytest.mark.parametrize(
    ("crash", "cause"),
    [
        (HANDED_BACK, "handed-back"),
        (describe_end(HUNG_EXIT), "hang"),
        ("no progress for 600 s", "hang"),
        (describe_end(-9), "worker-lost"),
        (describe_end(1), "worker-lost"),
        ("no sign of life", "worker-lost"),
        (None, "worker-lost"),
    ],
)
def test_a_retry_has_one_of_three_causes(crash: str | None, cause: RetryCause) -> None:
    assert retry_cause(crash) == cause
