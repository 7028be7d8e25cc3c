"""Real processes that are killed at random, and no study is lost or done twice."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
import sqlalchemy as sa

from model_core.imaging.nifti import read_label_map
from service.jobs.database import open_database
from service.jobs.tables import jobs
from tests.service.jobs.conftest import cluster as cluster
from tests.service.jobs.postgres import Cluster
from tests.service.servers import (
    form_files,
    head_images,
    serve_process,
    wait_ready,
    write_tiny_bundle,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STUDIES = 40
DEATHS = 8


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """The job database: the data folder's file, or a server's."""
    if request.param == "sqlite":
        return None
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.new_database()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    write_tiny_bundle(tmp_path / "models")
    yield tmp_path
    for process in psutil.process_iter(["cmdline"]):  # children of a killed supervisor
        if str(tmp_path) in " ".join(process.info["cmdline"] or ()):
            process.kill()


def test_forty_studies_survive_the_deaths_of_every_process(
    place: Path, database: str | None, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(4)
    server = request.getfixturevalue("cluster") if database else None
    settings = {"silence_seconds": 4, "attempts": 100, "data_dir": place / "data"}
    if database:
        settings["jobs_url"] = database
    images = [head_images(seed) for seed in range(4)]
    addresses: list[str] = []
    with serve_process(place, **settings) as running:
        client = running.client
        wait_ready(client)
        for number in range(STUDIES):
            addresses.append(_submitted(client, images[number % 4]))
            if number % (STUDIES // DEATHS) == 2:
                _kill_somebody(running.process, chance, server)
        deadline = time.monotonic() + 300
        while not all(_state(client, address) == "succeeded" for address in addresses):
            assert time.monotonic() < deadline, [_state(client, a) for a in addresses]
            time.sleep(0.5)
        maps = [_patiently(client, "GET", f"{address}/result").content for address in addresses]
    for number, label_map in enumerate(maps):
        assert label_map == maps[number % 4], "the same study has the same label map"
        labels, _ = read_label_map(label_map, argument="result")
        assert labels.any()
    url = database or f"sqlite:///{place / 'data' / 'jobs.sqlite'}"
    engine = open_database(url)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(jobs.c.id, jobs.c.state)).all()
    engine.dispose()
    assert len(rows) == STUDIES, "none was lost, none was made twice"
    assert {row.state for row in rows} == {"succeeded"}


def _submitted(client: httpx.Client, images: dict[str, bytes]) -> str:
    key = {"Idempotency-Key": uuid4().hex}
    response = _patiently(
        client, "POST", "/jobs", files=form_files(images), data={"cache": "false"}, headers=key
    )
    return str(response.json()["links"]["self"])


def _state(client: httpx.Client, address: str) -> str:
    return str(_patiently(client, "GET", address).json()["state"])


def _patiently(client: httpx.Client, method: str, address: str, **rest: object) -> httpx.Response:
    """Ask until there is an answer: the API is among those that die."""
    deadline = time.monotonic() + 90
    while True:
        try:
            response = client.request(method, address, **rest)  # type: ignore[arg-type]
            if response.status_code < 400:
                return response
            assert response.status_code in (409, 503), response.text
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "no answer"
        time.sleep(0.3)


def _kill_somebody(
    supervisor: subprocess.Popen[bytes], chance: random.Random, server: Cluster | None
) -> None:
    """A worker, the API, or the database server, without a warning."""
    victim = chance.choice(["worker", "api", "worker", "database" if server else "api"])
    if victim == "database":
        assert server is not None
        server.stop("immediate")
        server.start()
        return
    for child in psutil.Process(supervisor.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # one that is dead already, a zombie too
            if victim in child.cmdline()[-3:]:
                child.kill()
                return
