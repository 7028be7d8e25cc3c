"""What one running application holds: its settings, worker, models, metrics and readiness."""

from __future__ import annotations

import logging
import threading

from anyio import CapacityLimiter
from starlette.requests import Request

from model_core.cpu import limit_threads
from model_core.types import CancelCheck
from service.errors import NotReadyError, ShuttingDownError, problem_kind
from service.metrics import ServiceMetrics
from service.registry import ModelRegistry, SegmenterLike
from service.settings import Settings
from service.worker import InferenceWorker

logger = logging.getLogger("service")

_RETRY_WHILE_WARMING = 5
_PARSERS = 2  # studies decoded at the same time; each holds four volumes


class Service:
    """The living parts of one application, built once and reached through ``request.app``."""

    def __init__(
        self, settings: Settings, registry: ModelRegistry, metrics: ServiceMetrics
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.metrics = metrics
        self.worker = InferenceWorker(settings.queue_size)
        self.parsers = CapacityLimiter(_PARSERS)
        self._warm_up_problem: str | None = None
        self._grace: threading.Timer | None = None
        metrics.watch(
            queue_depth=lambda: self.worker.depth,
            running=lambda: self.worker.busy,
            models=registry.loaded_info,
            ready=lambda: self.not_ready() is None,
        )

    def start(self) -> None:
        """Start the worker; its first work is to load and warm up the default model."""
        self.worker.start()
        self.worker.post(self._warm_up)

    def acquire(self, name: str) -> SegmenterLike:
        """The warm segmenter of a model; worker thread only."""
        return self.registry.acquire(name)

    def not_ready(self) -> NotReadyError | ShuttingDownError | None:
        """Why the service should get no requests now, or None when it should."""
        if self.worker.draining:
            return ShuttingDownError("The service is shutting down.", retry_after=5)
        if self.registry.default in self.registry.loaded():
            return None
        reason = self._warm_up_problem or "The default model is being loaded and warmed up."
        return NotReadyError(reason, retry_after=_RETRY_WHILE_WARMING)

    def drain(self) -> None:
        """Take no more work; stop the running segmentation when the grace period ends."""
        if self.worker.draining:
            return
        self.worker.drain()
        self._grace = threading.Timer(self.settings.grace_seconds, self.worker.cancel_running)
        self._grace.daemon = True
        self._grace.start()

    def stop(self, timeout: float) -> None:
        """End the worker; the running segmentation is stopped at its next window."""
        self.drain()
        if self._grace is not None:
            self._grace.cancel()
        if not self.worker.close(timeout):
            logger.warning("the worker is inside a long step; leaving without it")

    def _warm_up(self, _cancelled: CancelCheck) -> None:
        try:
            # here, because OpenMP counts threads anew for each thread that computes
            limit_threads(self.settings.threads)
            self.acquire(self.registry.default)
        except Exception as error:
            kind = problem_kind(error)
            self._warm_up_problem = f"The default model could not be loaded: {kind.title.lower()}."
            self.metrics.errors.labels(kind.cause).inc()
            raise


def service_of(request: Request) -> Service:
    """The service behind a request."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
