"""A worker process from its start to its end: load, warm up, take jobs, drain, leave."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping
from multiprocessing.util import _exit_function  # type: ignore[attr-defined]  # nothing public
from typing import Any, Final
from uuid import uuid4

import psutil
from prometheus_client import CollectorRegistry

from model_core.allocator import keep_freed_memory
from model_core.cpu import limit_threads
from service.catalogue import default_name
from service.dicomweb.servers import parse_servers
from service.jobs.blobs import BlobStore
from service.jobs.executor import Executor, ExecutorOptions
from service.jobs.records import Job
from service.metrics import RunMetrics
from service.observability import configure_logging, describe_exception
from service.parent import leave_with_parent
from service.problems import WORKER_LOST
from service.pulse import give_pulse
from service.reading import StudyReader
from service.settings import MEBIBYTE, Settings
from service.supervisor import WORKER_ID_VARIABLE
from service.tracing import finish_spans, tracing
from service.worker.bundles import bundle_loader
from service.worker.memory import device_memory
from service.worker.refresh import Refresher
from service.worker.registry import ModelRegistry
from service.worker.spool import SpoolKeeper
from service.worker.work import StudyWork

logger = logging.getLogger("service.worker")

CANNOT_START: Final = 78
"""Exit status of a worker whose model cannot be loaded (EX_CONFIG)."""


def run_worker(settings: Settings, device: str) -> int:
    """Take jobs until SIGTERM or SIGINT; a second one ends the process at once.

    Args:
        settings: of the service.
        device: what to compute on.

    Returns:
        the exit status; the process should end with it by `os._exit`.

    Raises:
        OptionError: traces are asked for and cannot be sent.
    """
    configure_logging(settings.log_level)
    with tracing():
        return _run(settings, device)


def _run(settings: Settings, device: str) -> int:
    keep_freed_memory()
    leave = _Signals()
    leave_with_parent()
    limit_threads(settings.threads)
    metrics = RunMetrics(CollectorRegistry())
    registry = ModelRegistry(
        default_name(settings),
        capacity=settings.max_models,
        factory=bundle_loader(settings, device),
        budget=settings.models_memory_bytes,
        swapped=metrics.count_swap,
    )
    try:
        registry.acquire(registry.default)
    except Exception as error:  # noqa: BLE001 - the log has its type, the supervisor its status
        logger.error("the default model cannot be loaded", extra={**describe_exception(error)})
        return CANNOT_START
    reader = StudyReader(settings.reading_limits)
    blobs = BlobStore(settings.storage_url, settings.spool)
    work = StudyWork(
        registry,
        blobs,
        reader,
        metrics,
        parse_servers(settings.dicomweb_servers or ""),
    )
    recycle = _Recycling(settings.recycle_mb, leave)

    def ended(job: Job) -> None:
        work.ended(job)
        recycle.look()

    executor = Executor(
        settings.database_url,
        work,
        worker_id=os.environ.get(WORKER_ID_VARIABLE) or new_worker_id(),
        device=device,
        options=executor_options(settings),
        facts=lambda: _facts(registry, device),
        ended=ended,
        dropped=work.dropped,
        hung=lambda: finish_spans(WORKER_LOST.type),
    )
    refresher = Refresher(registry, executor.tell)
    keeper = SpoolKeeper(blobs)
    executor.start()
    refresher.start()
    keeper.start()
    give_pulse(executor.options.beat)
    logger.info("worker ready", extra={"device": device})
    leave.wait()
    refresher.stop()
    keeper.stop()
    finished = executor.drain(settings.grace_seconds)
    logger.info("worker leaves", extra={"finished": finished})
    executor.close()
    reader.close()
    _exit_function()  # no normal exit will follow that would remove the fork server's folder
    return 0


def new_worker_id() -> str:
    """Unique for every start of a process: an id that is used again would hide a death."""
    return f"{socket.gethostname()[:48]}-{os.getpid()}-{uuid4().hex[:8]}"


def executor_options(settings: Settings) -> ExecutorOptions:
    """How the settings want a worker to behave."""
    return ExecutorOptions(
        beat=settings.silence_seconds / 10,
        silence=settings.silence_seconds,
        hang=settings.hang_seconds,
        attempts=settings.attempts,
    )


def _facts(registry: ModelRegistry, device: str) -> Mapping[str, Any]:
    return {
        "models": [info._asdict() for info in registry.loaded_info()],
        "versions": registry.states(),
        "rss": psutil.Process().memory_info().rss,
        "device_memory": device_memory(device),
        "pid": os.getpid(),
    }


class _Signals:
    """The first signal asks to leave, the second one does not ask."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)

    def _hear(self, number: int, _frame: object) -> None:
        if self._asked.is_set():
            os._exit(128 + number)
        self._asked.set()

    def ask(self) -> None:
        self._asked.set()

    def wait(self) -> None:
        while not self._asked.wait(1.0):  # a wait without an end would not hear a signal
            pass


class _Recycling:
    """Lets a worker leave that has grown too large; its supervisor starts another one."""

    def __init__(self, limit_mb: int | None, leave: _Signals) -> None:
        self._limit, self._leave = limit_mb, leave

    def look(self) -> None:
        """After a job."""
        held = psutil.Process().memory_info().rss // MEBIBYTE
        if self._limit is not None and held > self._limit:
            logger.warning("worker recycled", extra={"rss_mb": held})
            self._leave.ask()
