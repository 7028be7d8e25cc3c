"""New versions of a model come into a running service while studies flow through it."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch

from model_core.checkpoints import add_bundle, load_bundle
from model_core.imaging.study import load_study
from model_core.inference.segmenter import Segmenter
from tests.service.fakes import assert_problem, metric, wait_until
from tests.service.servers import (
    form_files,
    head_images,
    serve_process,
    wait_ready,
    write_tiny_bundle,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SEEDS = {"1.0.0": 3, "1.1.0": 5, "1.10.0": 6}
SETTINGS = {"threads": 1, "precision": "float32", "max_models": 2}
PATIENCE = 120


class Flow(threading.Thread):
    """One study after the other, each computed anew, until it is told to stop."""

    def __init__(self, client: httpx.Client, images: dict[str, bytes]) -> None:
        super().__init__()
        self.address, self.images = client.base_url, images
        self.answers: list[tuple[int, str, str]] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self.address, timeout=PATIENCE) as client:
            while not self.stopped.is_set():
                answer = client.post(
                    "/segment", files=form_files(self.images), data={"cache": "false"}
                )
                version = answer.headers.get("x-segmamba-model-version", answer.text)
                digest = hashlib.sha256(answer.content).hexdigest()
                self.answers.append((answer.status_code, version, digest))

    def await_more(self, version: str, count: int = 2) -> None:
        """Until so many more answers of a version have come, and the last one is of it."""
        begun = len(self.answers)

        def came() -> bool:
            new = [told for _, told, _ in self.answers[begun:]]
            return new.count(version) >= count and new[-1] == version

        wait_until(came, PATIENCE)


@contextmanager
def flowing(client: httpx.Client, images: dict[str, bytes]) -> Iterator[Flow]:
    flow = Flow(client, images)
    flow.start()
    try:
        yield flow
    finally:
        flow.stopped.set()
        flow.join(PATIENCE)
    assert not flow.is_alive()


def direct(bundle: Path, images: dict[str, bytes], folder: Path) -> str:
    """Checksum of the label map that a version makes without a service."""
    files = {}
    for contrast, content in images.items():
        files[contrast] = folder / f"{contrast}.nii.gz"
        files[contrast].write_bytes(content)
    threads = torch.get_num_threads()
    torch.set_num_threads(SETTINGS["threads"])
    try:
        segmenter = Segmenter(load_bundle(bundle), precision=SETTINGS["precision"])
        return hashlib.sha256(segmenter.segment(load_study(files)).encode()).hexdigest()
    finally:
        torch.set_num_threads(threads)


def states(client: httpx.Client) -> dict[str, str]:
    versions = client.get("/models/tiny").json()["versions"]
    return {one["version"]: one["state"] for one in versions}


def test_versions_are_exchanged_while_studies_flow(tmp_path: Path) -> None:
    images, models = head_images(), tmp_path / "models"
    sources = {
        version: write_tiny_bundle(tmp_path / "made" / version, version=version, seed=seed)
        for version, seed in SEEDS.items()
    }
    expected = {one: direct(source, images, tmp_path) for one, source in sources.items()}
    assert len(set(expected.values())) == len(SEEDS)
    add_bundle(sources["1.0.0"], models)
    with serve_process(tmp_path, data_dir=tmp_path / "data", **SETTINGS) as running:
        client = running.client
        wait_ready(client, PATIENCE)
        with flowing(client, images) as flow:
            flow.await_more("1.0.0")
            add_bundle(sources["1.1.0"], models)
            flow.await_more("1.1.0")
            spoilt = write_tiny_bundle(models, version="1.2.0", folder=".1.2.0")
            with (spoilt / "weights.safetensors").open("r+b") as file:
                file.truncate(1000)
            spoilt.rename(models / "tiny" / "1.2.0")
            wait_until(lambda: states(client).get("1.2.0") == "broken", PATIENCE)
            flow.await_more("1.1.0")
            add_bundle(sources["1.10.0"], models)
            flow.await_more("1.10.0")
            wait_until(lambda: states(client)["1.10.0"] == "ready", PATIENCE)
        assert states(client) == {
            "1.10.0": "ready", "1.2.0": "broken", "1.1.0": "available", "1.0.0": "available",
        }  # fmt: skip
        swaps = {
            result: metric(client, f'segmamba_model_swaps_total{{result="{result}"}}')
            for result in ("ok", "broken")
        }
        assert swaps == {"ok": 2, "broken": 1}
        known = client.post("/segment", files=form_files(images), data={"model": "tiny@1.0.0"})
        assert hashlib.sha256(known.content).hexdigest() == expected["1.0.0"]
        again = client.post("/jobs", files=form_files(images), data={"model": "tiny@1.0.0"}).json()
        assert (again["cached"], again["model_version"]) == (True, "1.0.0")
        refused = client.post("/segment", files=form_files(images), data={"model": "tiny@1.2.0"})
        assert_problem(refused, 422, "option")
        told = [event for event in running.events() if "is broken" in str(event["event"])]
    assert [event["version"] for event in told] == ["1.2.0"]
    assert Counter(status for status, _, _ in flow.answers) == {200: len(flow.answers)}
    for _, version, digest in flow.answers:
        assert digest == expected[version], "the version that it names made the label map"
    order = [list(SEEDS).index(version) for _, version, _ in flow.answers]
    assert order == sorted(order), "no job is answered by an older version than the one before"
