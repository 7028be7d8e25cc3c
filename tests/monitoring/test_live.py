"""Every query is asked of a real Prometheus that scrapes a real service."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.monitoring.scraper import query, scraping, value
from tests.monitoring.watching import alerts, expressions, panel_queries
from tests.service.fakes import wait_until
from tests.service.servers import (
    form_files,
    head_images,
    serve_process,
    wait_ready,
    write_tiny_bundle,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WITHOUT_DATA = {
    "Attempts begun again A": "no worker dies here; tests/integration/test_chaos.py kills some",
    "Steps for want of memory A": "no memory runs out here",
}
"""Queries that a healthy service on a processor has nothing to answer to."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of Prometheus, after the service has done one of everything."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("no prometheus binary here: apt-get install prometheus")
    folder = tmp_path_factory.mktemp("watched")
    write_tiny_bundle(folder / "models", version="1.0.0", folder="1.0.0")
    with serve_process(folder, threads=1, precision="float32") as server:
        wait_ready(server.client, 120)
        place = str(server.client.base_url).removeprefix("http://")
        with scraping(binary, folder, place) as client:
            wait_until(lambda: value(client, "segmamba_ready") == 1, 60)
            do_one_of_everything(server.client, folder)
            wait_until(lambda: value(client, 'segmamba_model_swaps_total{result="ok"}') == 1, 60)
            do_one_of_everything(server.client, folder)  # rates want two scrapes of a series
            ended = 'segmamba_jobs_ended_total{state="succeeded"}'
            wait_until(lambda: value(client, f"increase({ended}[1m])") > 0, 60)
            wait_until(lambda: len(query(client, "segmamba:late_starts:ratio_rate3d")) == 1, 60)
            yield client


def do_one_of_everything(service: httpx.Client, folder: Path) -> None:
    """Studies that are computed, known, refused and cancelled, and a new version of the model."""
    images = form_files(head_images())
    for data in ({}, {}, {"cache": "false"}):
        assert service.post("/segment", files=images, data=data).status_code == 200
    assert service.post("/segment", files=images[:3]).status_code == 422
    job = service.post("/jobs", files=images, data={"cache": "false"}).json()
    service.delete(job["links"]["self"])
    if not (folder / "models" / "tiny" / "1.1.0").exists():
        write_tiny_bundle(folder / "models", version="1.1.0", folder="1.1.0", seed=5)


def asked(expression: str) -> str:
    """A query as Grafana would send it; the labels of a cluster are not here."""
    expression = expression.replace("$__rate_interval", "1m")
    return re.sub(r'\{namespace="\w+"\}', "", expression)


@pytest.mark.parametrize("panel", panel_queries())
def test_a_panel_has_something_to_show(watched: httpx.Client, panel: str) -> None:
    found = query(watched, asked(panel_queries()[panel]))
    numbers = [float(one["value"][1]) for one in found if one["value"][1] != "NaN"]
    assert bool(numbers) != (panel in WITHOUT_DATA), found


def test_the_scaler_gets_one_number(watched: httpx.Client) -> None:
    (found,) = query(watched, asked(expressions()["ScaledObject"]))
    assert float(found["value"][1]) >= 0


def test_every_rule_is_evaluated_without_an_error(watched: httpx.Client) -> None:
    groups = watched.get("/api/v1/rules").json()["data"]["groups"]
    found = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(alerts()) < set(found)
    assert not [rule.get("lastError") for rule in found.values() if rule["health"] != "ok"]


def test_a_healthy_service_rings_nothing(watched: httpx.Client) -> None:
    """Callers' mistakes, cancelled jobs and new versions are no trouble."""
    assert value(watched, 'sum(segmamba_errors_total{cause="input"})') > 0
    for name, alert in alerts().items():
        assert query(watched, alert["expr"]) == [], name


def test_an_alert_that_asks_for_one_of_many_labels_sees_the_series(watched: httpx.Client) -> None:
    """The same queries, turned to what is there, have an answer: nothing above meant health."""
    turned = {
        "SegmambaDown": ("== 0", "== 1"),
        "SegmambaNotReady": ("== 0", "== 1"),
        "SegmambaQueueWaits": ("> 900", ">= 0"),
        "SegmambaNotFinite": ("numerical", "input"),
        "SegmambaModelBroken": ("broken", "ok"),
        "SegmambaSlowBackend": (r'cuda\.\*", backend=~"torch', 'cpu", backend=~"native|torch'),
        "SegmambaFaultBudgetBurnsFast": (r"> 0\.\d+", ">= 0"),
        "SegmambaWaitBudgetBurnsSlow": (r"> 0\.\d+", ">= 0"),
    }
    for name, (old, new) in turned.items():
        expression = re.sub(old, new, alerts()[name]["expr"])
        assert query(watched, expression), name
