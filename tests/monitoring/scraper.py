"""A real Prometheus with the project's rules, on one target, quick enough for a test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server
from typing import Any

import httpx
import yaml

from tests.monitoring.watching import MONITORING
from tests.service.fakes import wait_until


@contextmanager
def scraping(binary: str, folder: Path, target: str) -> Iterator[httpx.Client]:
    """A client of its HTTP interface; it scrapes and judges every half second."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(MONITORING / "rules" / "*.yml")]
    (scrape,) = config["scrape_configs"]
    del scrape["authorization"], scrape["dns_sd_configs"]  # one service, on loopback without a key
    scrape["static_configs"] = [{"targets": [target]}]
    with prometheus(binary, folder, config) as client:
        yield client


@contextmanager
def prometheus(binary: str, folder: Path, config: dict[str, Any]) -> Iterator[httpx.Client]:
    """A Prometheus on a free port of loopback, by a configuration; a client of its interface."""
    place = folder / "prometheus.yml"
    place.write_text(yaml.safe_dump(config))
    with create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    arguments = [
        binary,
        f"--config.file={place}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=10) as client:
            wait_until(lambda: answers(client), 60)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def answers(client: httpx.Client) -> bool:
    """Whether it is ready."""
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def query(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """What a query finds now."""
    answer = client.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", answer
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def value(client: httpx.Client, expression: str) -> float:
    """The first number that a query finds; none is not a number."""
    found = query(client, expression)
    return float(found[0]["value"][1]) if found else float("nan")
