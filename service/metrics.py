"""Prometheus metrics, one registry per application so that two of them never share a counter.

Labels are closed sets (route templates, stages, causes, installed models): no value sent by a
caller ever becomes a label.
"""

from __future__ import annotations

from collections import Counter as Counted
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

import sqlalchemy as sa
from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.jobs.records import STATES, State, Worker

if TYPE_CHECKING:
    from service.jobs.engine import JobEngine

_READY: Final = "1 while a worker takes jobs and this process is not shutting down."
REQUEST_BUCKETS: Final = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1800)
STAGE_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1800)
WINDOW_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)
UPLOAD_BUCKETS: Final = tuple(float(2**power) for power in range(10, 31, 2))


class ModelInfo(NamedTuple):
    """What the labels of ``segmamba_backend_info`` say about a model in memory."""

    model: str
    version: str
    backend: str
    device: str
    precision: str


class ServiceMetrics:
    """Every series that the service exposes, and the verbs that feed them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self.requests = Counter(
            "segmamba_requests_total",
            "Requests answered.",
            ("route", "method", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "segmamba_request_seconds",
            "Seconds from a request's head to the end of its answer.",
            ("route", "method"),
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self.upload_bytes = Histogram(
            "segmamba_upload_bytes",
            "Bytes of the four images as sent.",
            buckets=UPLOAD_BUCKETS,
            registry=registry,
        )
        self.errors = Counter(
            "segmamba_errors_total", "Problems answered, by cause.", ("cause",), registry=registry
        )
        self.result_cache = Counter(
            "segmamba_result_cache_total",
            "Studies taken: answered from an earlier result, not known, or not looked up.",
            ("outcome",),
            registry=registry,
        )
        own = CollectorRegistry()
        self._jobs_ended = _jobs_ended(own)
        self.shared: Final[list[Collector]] = [own]
        """This process and workers: who count in the same families."""
        registry.register(_Merged(self.shared))

    def watch(self, house: House) -> None:
        """Bind what is read at scrape time: the queue, the workers, the models."""
        self.registry.register(_HouseCollector(house))

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests.labels(route, method, str(status)).inc()
        self.request_seconds.labels(route, method).observe(seconds)

    def count_submitted(self, *, looked_up: bool, found: bool) -> None:
        """Count a new job, and whether an earlier job's result has answered it."""
        self.result_cache.labels("hit" if found else "miss" if looked_up else "bypass").inc()

    def count_cancelled(self) -> None:
        """Count a job that a caller has cancelled."""
        self._jobs_ended.labels("cancelled").inc()

    def gather(self, folder: Path) -> None:
        """Show what the workers of this machine have written into a folder (`RunMetrics`)."""
        folder.mkdir(parents=True, exist_ok=True)
        self.shared.append(MultiProcessCollector(None, path=str(folder)))  # type: ignore[no-untyped-call]

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """The exposition in the format that the scraper asks for, and its content type."""
        encode, content_type = choose_encoder(accept or "")
        return encode(self.registry), content_type


class RunMetrics:
    """What a worker measures of its runs.

    Where the environment names a folder (``PROMETHEUS_MULTIPROC_DIR``, before this module is
    imported), the numbers lie in files there, and outlive the process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.stage_seconds = Histogram(
            "segmamba_stage_seconds",
            "Seconds per stage of one segmentation.",
            ("stage",),
            buckets=STAGE_BUCKETS,
            registry=registry,
        )
        self.window_seconds = Histogram(
            "segmamba_window_seconds",
            "Seconds per sliding window, all its mirrored passes included.",
            buckets=WINDOW_BUCKETS,
            registry=registry,
        )
        self.windows = Counter(
            "segmamba_windows_total",
            "Sliding windows computed, those of unfinished segmentations included.",
            registry=registry,
        )
        self.retries = Counter(
            "segmamba_job_retries_total",
            "Attempts that were begun because of the end of an earlier one, by that end's cause.",
            ("cause",),
            registry=registry,
        )
        self.memory_steps = Counter(
            "segmamba_memory_steps_total",
            "What segmentations did because memory ran out, step by step.",
            ("step",),
            registry=registry,
        )
        self.jobs_ended = _jobs_ended(registry)
        self.model_swaps = Counter(
            "segmamba_model_swaps_total",
            "Versions of models that took another one's place, or could not be loaded.",
            ("result",),
            registry=registry,
        )

    def count_swap(self, result: Literal["ok", "broken"]) -> None:
        """Count a version that serves in another one's place, or that could not be loaded."""
        self.model_swaps.labels(result).inc()

    def count_ended(self, state: State) -> None:
        """Count a job that has ended; one that was cancelled is counted where that was asked."""
        if state != "cancelled":
            self.jobs_ended.labels(state).inc()

    def observe(
        self,
        stages: Mapping[str, float],
        windows: Iterable[float],
        memory_steps: Iterable[str] = (),
    ) -> None:
        """Record the stages, windows and steps for want of memory of a finished segmentation."""
        for step in memory_steps:
            self.memory_steps.labels(step).inc()
        for stage, seconds in stages.items():
            self.stage_seconds.labels(stage).observe(seconds)
        for seconds in windows:
            self.window_seconds.observe(seconds)


def _jobs_ended(registry: CollectorRegistry) -> Counter:
    """Workers count what they finish, an API what its callers cancel."""
    return Counter(
        "segmamba_jobs_ended_total",
        "Jobs that ended, by state; not those answered from an earlier result.",
        ("state",),
        registry=registry,
    )


class _Merged(Collector):
    """Series of several sources, each family once; no two sources have a series in common."""

    def __init__(self, sources: list[Collector]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        """The families."""
        families: dict[str, Metric] = {}
        for metric in (metric for source in self._sources for metric in source.collect()):
            family = families.setdefault(metric.name, metric)
            if family is not metric:
                family.samples.extend(metric.samples)
        return families.values()


class House(Protocol):
    """What is asked at scrape time."""

    @property
    def engine(self) -> JobEngine:
        """The jobs."""

    def workers(self) -> list[Worker]:
        """Those that are there."""

    def not_ready(self) -> object | None:
        """A reason not to send requests here, if there is one."""


class _HouseCollector(Collector):
    """Queue, workers and models, read at scrape time; nothing where the database is silent."""

    def __init__(self, house: House) -> None:
        self._house = house

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        try:
            yield from self._gauges()
        except sa.exc.SQLAlchemyError:
            yield GaugeMetricFamily("segmamba_ready", _READY, value=0)

    def _gauges(self) -> Iterator[Metric]:
        house, store = self._house, self._house.engine.store
        counts = store.count_by_state()
        jobs = GaugeMetricFamily("segmamba_jobs", "Jobs that are kept, by state.", labels=["state"])
        for state in STATES:
            jobs.add_metric([state], counts.get(state, 0))
        yield jobs
        yield GaugeMetricFamily(
            "segmamba_queue_depth", "Jobs that wait for a worker.", value=counts.get("queued", 0)
        )
        yield GaugeMetricFamily(
            "segmamba_queue_oldest_seconds",
            "Age of the job that has waited longest.",
            value=store.oldest_waiting_seconds(),
        )
        yield GaugeMetricFamily(
            "segmamba_jobs_running", "Jobs that run now.", value=counts.get("running", 0)
        )
        yield GaugeMetricFamily("segmamba_ready", _READY, value=house.not_ready() is None)
        yield from _of_workers(house.workers())


def _of_workers(workers: Collection[Worker]) -> Iterator[Metric]:
    states = GaugeMetricFamily("segmamba_workers", "Worker processes, by state.", labels=["state"])
    for state in ("ready", "draining"):
        states.add_metric([state], sum(worker.state == state for worker in workers))
    yield states
    infos = {ModelInfo(**model) for worker in workers for model in worker.facts.get("models", ())}
    yield GaugeMetricFamily("segmamba_models_loaded", "Models in memory.", value=len(infos))
    family = GaugeMetricFamily(
        "segmamba_backend_info",
        "1 for each model in memory: its version, backend, device and precision.",
        labels=ModelInfo._fields,
    )
    for info in sorted(infos):
        family.add_metric(info, 1)
    yield family
    memory = GaugeMetricFamily(
        "segmamba_worker_memory_bytes", "Resident memory of worker processes.", labels=["device"]
    )
    for device in sorted({worker.device for worker in workers}):
        held = [worker.facts.get("rss", 0) for worker in workers if worker.device == device]
        memory.add_metric([device], sum(held))
    yield memory
    yield _memory_of_devices(workers)


def _memory_of_devices(workers: Collection[Worker]) -> Metric:
    """By worker's device and kind; the sum over workers that share a device."""
    family = GaugeMetricFamily(
        "segmamba_device_memory_bytes",
        "Memory that workers take of their devices; of the machine's where that is a CPU.",
        labels=["device", "kind"],
    )
    sums: Counted[tuple[str, str]] = Counted()
    for worker in workers:
        held_now = worker.facts.get("device_memory", {}).items()
        sums.update({(worker.device, kind): held for kind, held in held_now})
    for labels, held in sorted(sums.items()):
        family.add_metric(labels, held)
    return family
