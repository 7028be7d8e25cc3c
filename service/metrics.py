"""Prometheus metrics, one registry per application so that two of them never share a counter.

Labels are closed sets (route templates, stages, causes, installed models): no value sent by a
caller ever becomes a label.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

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
        self.upload_bytes = Histogram(
            "segmamba_upload_bytes",
            "Bytes of the four images as sent.",
            buckets=UPLOAD_BUCKETS,
            registry=registry,
        )
        self.errors = Counter(
            "segmamba_errors_total", "Problems answered, by cause.", ("cause",), registry=registry
        )

    def watch(
        self,
        *,
        queue_depth: Callable[[], float],
        running: Callable[[], float],
        models: Callable[[], Collection[ModelInfo]],
        ready: Callable[[], float],
    ) -> None:
        """Bind the gauges that are read at scrape time."""
        gauges: tuple[tuple[str, str, Callable[[], float]], ...] = (
            ("segmamba_queue_depth", "Segmentations that wait for the worker.", queue_depth),
            ("segmamba_jobs_running", "Segmentations that run now (0 or 1).", running),
            ("segmamba_models_loaded", "Models in memory.", lambda: len(models())),
            ("segmamba_ready", "1 once the default model is warm, 0 while draining.", ready),
        )
        for name, text, read in gauges:
            Gauge(name, text, registry=self.registry).set_function(read)
        self.registry.register(_BackendInfo(models))

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests.labels(route, method, str(status)).inc()
        self.request_seconds.labels(route, method).observe(seconds)

    def observe_run(self, stages: Mapping[str, float], windows: Iterable[float]) -> None:
        """Record the stages and windows of one finished segmentation."""
        for stage, seconds in stages.items():
            self.stage_seconds.labels(stage).observe(seconds)
        for seconds in windows:
            self.window_seconds.observe(seconds)

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """The exposition in the format that the scraper asks for, and its content type."""
        encode, content_type = choose_encoder(accept or "")
        return encode(self.registry), content_type


class _BackendInfo(Collector):
    """``segmamba_backend_info``: 1 for each model in memory, read at scrape time."""

    def __init__(self, models: Callable[[], Collection[ModelInfo]]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """One sample per model in memory."""
        family = GaugeMetricFamily(
            "segmamba_backend_info",
            "1 for each model in memory: its version, backend, device and precision.",
            labels=ModelInfo._fields,
        )
        for info in self._models():
            family.add_metric(info, 1)
        yield family
