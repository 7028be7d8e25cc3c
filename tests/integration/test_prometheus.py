"""A real Prometheus scrapes a real server, and its query API returns our series."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.monitoring.scraper import prometheus
from tests.service.fakes import FakeSegmenter, running_app, study_files, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prometheus_binary() -> str:
    found = shutil.which("prometheus")
    if found is None:
        pytest.skip("no prometheus binary here: apt-get install prometheus")
    return found


def watching(target: str) -> dict[str, Any]:
    """A configuration with one target."""
    return {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "400ms"},
        "scrape_configs": [{"job_name": "segmamba", "static_configs": [{"targets": [target]}]}],
    }


def query(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    answer = client.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", answer
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def value(client: httpx.Client, expression: str) -> float:
    found = query(client, expression)
    return float(found[0]["value"][1]) if found else float("nan")


def test_prometheus_scrapes_the_service(prometheus_binary: str, tmp_path: Path) -> None:
    with running_app(FakeSegmenter(windows=4)) as service:
        for _ in range(2):
            response = service.post("/segment", files=study_files(), data={"cache": "false"})
            assert response.status_code == 200
        assert service.post("/segment", files=study_files(t1=b"")).status_code == 422
        target = f"{service.base_url.host}:{service.base_url.port}"
        with prometheus(prometheus_binary, tmp_path, watching(target)) as client:
            wait_until(lambda: value(client, "up") == 1, 30)
            segment = 'segmamba_requests_total{route="/segment",method="POST",status="%d"}'
            wait_until(lambda: value(client, segment % 200) == 2, 30)
            assert value(client, segment % 422) == 1
            assert value(client, 'segmamba_errors_total{cause="input"}') == 1
            assert value(client, "segmamba_window_seconds_count") == 8
            assert value(client, "segmamba_windows_total") == 8
            assert value(client, 'segmamba_jobs_ended_total{state="succeeded"}') == 2
            assert value(client, 'segmamba_result_cache_total{outcome="bypass"}') == 2
            assert value(client, 'segmamba_stage_seconds_count{stage="infer"}') == 2
            assert value(client, "segmamba_queue_depth") == 0
            assert value(client, "segmamba_ready") == 1
            labels = query(client, "segmamba_backend_info")[0]["metric"]
            assert (labels["model"], labels["backend"], labels["device"]) == (
                "fake",
                "torch",
                "cpu",
            )
            quantile = "histogram_quantile(0.5, sum by (le) (segmamba_stage_seconds_bucket))"
            assert 0 < value(client, quantile) < 1
            text = query(client, 'count({__name__=~"segmamba_.*"})')
            assert float(text[0]["value"][1]) > 50


def test_promtool_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool binary here: apt-get install prometheus")
    with running_app() as service:
        service.post("/segment", files=study_files())
        exposition = service.get("/metrics").text
    ours = "".join(
        line + "\n"
        for line in exposition.splitlines()
        if line.split(" ")[-1] and "segmamba_" in line
    )
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=ours, capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
