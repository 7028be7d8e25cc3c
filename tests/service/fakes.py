"""A segmenter without a network, images without a scanner, and an application around them."""

from __future__ import annotations

import gzip
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import nibabel as nib
import numpy as np
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from model_core.catalogue import Installed, InstalledBundle
from model_core.errors import Cancelled
from model_core.imaging.study import Study
from model_core.inference.segmentation import Segmentation, SegmentOptions
from model_core.types import CONTRASTS, Progress
from service.app import create_app
from service.jobs.executor import Attempt, JobFailedError
from service.jobs.records import PRIORITIES, Job, Worker
from service.jobs.store import JobStore
from service.jobs.tables import jobs
from service.metrics import RunMetrics
from service.reading import ReadingLimits, StudyReader
from service.server import DrainingServer
from service.settings import Settings
from service.state import Service
from service.worker.registry import ModelRegistry
from service.worker.work import StudyWork

MODEL = "fake"
SHAPE = (12, 14, 10)
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def installed(name: str, version: str = "1.0.0", *, parameters: int = 1) -> InstalledBundle:
    """A bundle without files; its checksum is made of its name and version."""
    card = {
        "name": name,
        "version": version,
        "label_scheme": "brats2021",
        "weights": {
            "sha256": f"{name}{version}".encode().hex().ljust(64, "0"),
            "parameters": parameters,
        },
    }
    return InstalledBundle(name=name, version=version, folder=Path("/nowhere"), card=card)


CATALOGUE: Installed = {name: (installed(name),) for name in (MODEL, "other", "third")}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(512)


def image_bytes(seed: int = 0, *, shape: tuple[int, int, int] = SHAPE) -> bytes:
    """A gzipped NIfTI-1 file with seeded positive intensities and a border of zeros."""
    array = np.zeros(shape, dtype=np.float32)
    inner = tuple(slice(1, -1) for _ in shape)
    rng = np.random.default_rng(seed)
    array[inner] = rng.uniform(1, 100, size=array[inner].shape)
    image = nib.Nifti1Image(array, AFFINE)
    image.header.set_xyzt_units("mm")
    return gzip_nifti(image)


def gzip_nifti(image: nib.Nifti1Image) -> bytes:
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


def study_files(**replaced: bytes | None) -> list[tuple[str, tuple[str, bytes]]]:
    """The four form fields; a keyword replaces one image, or leaves it out when None."""
    images: dict[str, bytes | None] = {c: image_bytes(i) for i, c in enumerate(CONTRASTS)}
    images.update(replaced)
    return [
        (contrast, ("JANE_DOE_1970.nii.gz", data))
        for contrast, data in images.items()
        if data is not None
    ]


class FakeSegmenter:
    """Honours the segmenter's contract; labels 1, 2, 3 by thirds of the first contrast's range.

    Args:
        name: the model's name.
        windows: how often the cancel check is asked.
        window_seconds: sleep per window.
        on_window: called with the number of each window before it runs.
    """

    def __init__(
        self,
        name: str = MODEL,
        *,
        windows: int = 1,
        window_seconds: float = 0.0,
        on_window: Callable[[int], None] | None = None,
    ) -> None:
        self.name = name
        self.card = SimpleNamespace(version="1.0.0")
        self.backend = "torch"
        self.device = "cpu"
        self.precision = "float32"
        self.windows = windows
        self.window_seconds = window_seconds
        self.on_window = on_window or (lambda _number: None)
        self.warmed = 0
        self.options: list[SegmentOptions] = []

    def warm_up(self) -> float:
        self.warmed += 1
        return 0.0

    def segment(
        self,
        study: Study,
        options: SegmentOptions = SegmentOptions(),  # noqa: B008 - frozen
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Segmentation:
        self.options.append(options)
        for number in range(self.windows):
            if cancelled is not None and cancelled():
                raise Cancelled("Stopped between windows.")
            self.on_window(number)
            time.sleep(self.window_seconds)
            if progress is not None:
                progress("infer", number + 1, self.windows)
        labels = np.digitize(study.native.array, [1, 34, 67]).astype(np.uint8)
        return Segmentation(
            labels=labels,
            native=study.native,
            label_scheme=options.label_scheme or "brats2021",
            volumes_ml={"NCR": 0.1, "ED": 0.2, "ET": 0.3, "WT": 0.6, "TC": 0.4},
            stage_seconds={"prepare": 0.01, "infer": 0.02, "restore": 0.0, "postprocess": 0.0},
            window_seconds=(0.01,) * self.windows,
            model=self.name,
            model_version=self.card.version,
            weights_sha256="0" * 64,
            backend="torch",
            device="cpu",
            tta={"mode": options.tta or "none", "passes": 1, "averaged": "logits"},
            warnings=study.warnings,
            postprocess_report=(),
        )


class Gate:
    """Holds a fake segmenter inside a window until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, _number: int) -> None:
        self.entered.set()
        assert self.opened.wait(30)


def make_settings(**changes: Any) -> Settings:
    return Settings(**{"model": MODEL, "grace_seconds": 5.0, **changes})


@contextmanager
def running_app(
    segmenter: FakeSegmenter | None = None,
    *,
    segmenters: Mapping[str, FakeSegmenter] | None = None,
    settings: Settings | None = None,
) -> Iterator[httpx.Client]:
    """A client of a real server on a free port, with a worker in this process, its model warm."""
    known = segmenters or {MODEL: segmenter or FakeSegmenter()}
    with running_api(settings) as client, hired(service_of(client), known.__getitem__):
        assert client.get("/health/ready").status_code == 200
        yield client


@contextmanager
def running_api(settings: Settings | None = None) -> Iterator[httpx.Client]:
    """A client of a real server on a free port, without a worker."""
    settings = settings or make_settings()
    with tempfile.TemporaryDirectory() as folder:
        if "data_dir" not in settings.model_fields_set:
            settings = settings.model_copy(update={"data_dir": Path(folder)})
        with served(create_app(settings, catalogue=lambda: CATALOGUE)) as client:
            yield client


@contextmanager
def hired(service: Service, factory: Callable[[str], Any]) -> Iterator[ModelRegistry]:
    """A worker in this process, its default model warm; it looks for new versions when told to."""
    settings = service.settings
    registry = ModelRegistry(
        service.default_model,
        capacity=settings.max_models,
        factory=lambda bundle: factory(bundle.name),
        installed=service.catalogue,
        budget=settings.models_memory_bytes,
    )
    registry.acquire(registry.default)
    counted = CollectorRegistry()
    service.metrics.shared.append(counted)
    with StudyReader(ReadingLimits(voxels=settings.max_voxels)) as reader:
        metrics = RunMetrics(counted)
        work = StudyWork(registry, service.blobs, reader, metrics, service.archives)
        worker = ThreadWorker(service.engine.store, work, registry)
        worker.start()
        wait_until(lambda: any(found.id == worker.name for found in service.workers()))
        try:
            yield registry
        finally:
            worker.stopped.set()
            worker.join(10)
            assert not worker.is_alive()
            service.engine.store.forget_worker(worker.name)
            service.metrics.shared.remove(counted)


class ThreadWorker(threading.Thread):
    """The real work on a thread, with jobs taken from the table instead of the engine's queue.

    The engine allows one executor a process, and has its own tests with processes that die
    (tests/service/jobs).
    """

    def __init__(self, store: JobStore, work: StudyWork, registry: ModelRegistry) -> None:
        super().__init__(name=f"thread-{uuid4().hex}", daemon=True)
        self.store, self.work, self.registry = store, work, registry
        self.stopped, self.beaten = threading.Event(), 0.0

    def run(self) -> None:
        while not self.stopped.wait(0.01):
            if time.monotonic() - self.beaten > 1:
                self.beat()
            waiting = self.store.select(jobs.c.state == "queued", newest=False)
            waiting.sort(key=lambda job: PRIORITIES.index(job.priority))
            if waiting and (job := self.store.claim(waiting[0].id, self.name)):
                self.do(Following(job, self.store))

    def beat(self) -> None:
        models = [info._asdict() for info in self.registry.loaded_info()]
        facts: dict[str, Any] = {"models": models, "versions": self.registry.states()}
        self.store.beat(
            Worker(id=self.name, device="cpu", state="ready", facts=facts, job=None, seen=0)
        )
        self.beaten = time.monotonic()

    def do(self, attempt: Attempt) -> None:
        job, number = attempt.job, attempt.number
        try:
            outcome = self.work(attempt)
            self.beat()  # before the end shows: a model may have come
            counted = self.store.complete(
                job.id, number, outcome.result, outcome.stored_bytes, outcome.cache_key
            )
            state = "succeeded"
            if not counted:
                self.work.dropped(outcome)
        except Cancelled:
            state = "cancelled"
        except JobFailedError as failure:
            self.store.fail(job.id, number, failure.problem)
            state = "failed"
        self.work.ended(replace(job, state=state))


class Following(Attempt):
    """An attempt that asks the table itself whether it still counts."""

    def __init__(self, job: Job, store: JobStore) -> None:
        super().__init__(job)
        self.store = store

    def cancelled(self) -> bool:
        return not self.store.still_mine(self.job.id, self.number)


def service_of(client: httpx.Client) -> Service:
    """The service behind a client of `served`."""
    service: Service = client.__dict__["app"].state.service
    return service


@contextmanager
def served(app: FastAPI) -> Iterator[httpx.Client]:
    """Serve an application in a thread of this process, over a real socket."""
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=10)
    server = DrainingServer(config, app.state.service)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=address, timeout=30) as client:
                client.__dict__["app"] = app
                yield client
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive(), "the server did not stop"


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def assert_problem(response: httpx.Response, status: int, cause: str) -> dict[str, Any]:
    """The one shape of every refusal; returns its members for closer looks."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"urn:segmamba:problem:{cause}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    extras = {"field", "expected", "got", "way_out"}
    assert extras <= set(problem) or not extras & set(problem)
    assert response.headers["cache-control"] == "no-store"
    return problem


def metric(client: httpx.Client, sample: str) -> float:
    """The value of one sample of /metrics, written as in the exposition; 0 where it is absent."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(sample + " "):
            return float(line.rsplit(" ", 1)[1])
    return 0.0
