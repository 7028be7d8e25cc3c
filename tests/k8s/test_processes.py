"""The processes of the pods, with the manifests' variables, on one machine and a PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import create_server

import httpx
import pytest

from tests.k8s.merging import Document
from tests.k8s.overlays import containers, settings_of
from tests.k8s.variants import documents_of, the
from tests.service.fakes import metric, wait_until
from tests.service.jobs.postgres import running_cluster
from tests.service.servers import COMMAND, form_files, head_images, write_tiny_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


ENDED = (0, -signal.SIGTERM)
"""Uvicorn ends by the signal that it has obeyed, unless it is the first process of a container."""


def container_of(workload: str, name: str) -> tuple[Document, dict[str, str]]:
    """A container of the overlay ``cpu``, and its variables."""
    documents = documents_of("cpu")
    every = containers(the(documents, "Deployment", workload))
    (container,) = (one for one in every if one["name"] == name)
    return container, settings_of(container, documents)


@dataclass
class Node:
    """What the cluster gives: a database, the volumes, addresses."""

    folder: Path
    database: str

    def environment(self, pod: str, settings: dict[str, str], port: int) -> dict[str, str]:
        """Variables of a container, with the folders of this machine in the place of its mounts."""
        own = {"/data": f"{pod}/data", "/tmp": f"{pod}/tmp", "/blobs": "blobs", "/models": "models"}
        placed = {
            name: str(self.folder / own[value]) if value in own else value
            for name, value in settings.items()
        }
        (self.folder / pod / "tmp").mkdir(parents=True, exist_ok=True)
        here = {
            "SEGMAMBA_JOBS_URL": self.database,
            "SEGMAMBA_HOST": "127.0.0.1",
            "SEGMAMBA_PORT": str(port),
            "SEGMAMBA_MODEL": "tiny",
            "SEGMAMBA_THREADS": "1",
            "SEGMAMBA_PRECISION": "float32",
        }
        return {"PATH": os.environ["PATH"], **placed, **here}

    @contextmanager
    def runs(self, pod: str, workload: str, name: str) -> Iterator[Process]:
        """A container's command with its variables."""
        container, settings = container_of(workload, name)
        with create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        environment = self.environment(pod, settings, port)
        words = container["args"]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*COMMAND, *words], env=environment, stdout=log, stderr=log, cwd=self.folder
            )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                yield Process(process, client)
        finally:
            process.kill()
            process.wait(20)

    def key(self, scopes: str) -> dict[str, str]:
        """A new key, made as the guide says: in the console, before anything else runs."""
        (container,) = containers(the(documents_of("console"), "Pod", "segmamba-console"))
        environment = self.environment("console", settings_of(container, []), 0)
        words = ["keys", "add", "test", "--scopes", scopes, "--json"]
        done = subprocess.run([*COMMAND, *words], env=environment, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return {"Authorization": f"Bearer {json.loads(done.stdout)['key']}"}


@dataclass
class Process:
    """A container that runs."""

    process: subprocess.Popen[bytes]
    client: httpx.Client

    def answers(self, path: str) -> int:
        """A probe: the status, 0 where nobody listens."""
        try:
            return self.client.get(path).status_code
        except httpx.TransportError:
            return 0

    def ends(self, seconds: float) -> int:
        """The status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    write_tiny_bundle(tmp_path / "models")
    with running_cluster() as cluster:
        yield Node(tmp_path, cluster.new_database())


def test_pods_work_together_are_seen_and_drain_one_after_the_other(node: Node) -> None:
    caller, scraper = node.key("segment"), node.key("metrics")
    with ExitStack() as stack:
        api = stack.enter_context(node.runs("a", "segmamba-api", "api"))
        wait_until(lambda: api.answers("/health/live") == 200, 60)
        assert api.answers("/health/ready") == 503, "no worker yet"
        sidecar = stack.enter_context(node.runs("b", "segmamba-worker", "metrics"))
        worker = stack.enter_context(node.runs("b", "segmamba-worker", "worker"))
        wait_until(lambda: api.answers("/health/ready") == 200, 120)
        images = form_files(head_images())
        assert api.client.post("/segment", files=images).status_code == 401
        assert api.client.post("/segment", files=images, headers=caller).status_code == 200
        assert api.client.get("/metrics", headers=caller).status_code == 403
        for pod in (api, sidecar):
            wait_until(lambda pod=pod: pod.answers("/health/live") == 200, 60)
            pod.client.headers.update(scraper)
            assert metric(pod.client, 'segmamba_jobs{state="succeeded"}') == 1
        assert metric(sidecar.client, "segmamba_windows_total") > 0
        assert "segmamba_window_seconds_count" not in api.client.get("/metrics").text
        assert worker.ends(40) == 0
        assert api.answers("/health/ready") == 503, "its last worker is gone"
        assert api.answers("/health/live") == 200
        assert metric(sidecar.client, "segmamba_windows_total") > 0, "the last numbers are seen"
        assert sidecar.ends(15) in ENDED
        assert api.ends(45) in ENDED
