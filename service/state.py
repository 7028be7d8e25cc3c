"""What one API process holds: settings, the job engine, files, metrics, and whether it is ready."""

from __future__ import annotations

import logging
import math
import time
from typing import Final

from starlette.requests import Request

from service.auth.principal import Limits, Principal
from service.auth.quota import check_quota
from service.catalogue import Catalogue, Key, State, WantedModel, default_name, resolve
from service.dicomweb.servers import parse_servers
from service.errors import (
    KeyReusedError,
    NotReadyError,
    QueueFullError,
    ShuttingDownError,
)
from service.form import SegmentForm
from service.housekeeping import Housekeeping
from service.inspector import Inspector
from service.jobs.blobs import BlobStore
from service.jobs.database import UNREACHABLE
from service.jobs.engine import (
    FullQueueError,
    JobEngine,
    ReusedKeyError,
    Submitted,
    id_of,
)
from service.jobs.records import Job, NewJob, Worker
from service.jobs.watch import Watch
from service.metrics import ServiceMetrics
from service.room import Room
from service.settings import MEBIBYTE, Settings
from service.study_jobs import forget_inputs, keep_inputs

logger = logging.getLogger("service")

LONGEST_RETRY: Final = 600
_RETRY_WHILE_WARMING: Final = 5


class Service:
    """The living parts of one application, reached through ``request.app``.

    Nothing is opened before `start`.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue, metrics: ServiceMetrics) -> None:
        self.settings, self.catalogue, self.metrics = settings, catalogue, metrics
        self.default_model = default_name(settings)
        self.archives = parse_servers(settings.dicomweb_servers or "")
        self.inspector = Inspector(settings)
        self.draining = False
        self._drained = 0.0

    def start(self) -> None:
        """Open the job database and the storage, and begin to watch and to tidy up."""
        settings = self.settings
        self.engine = JobEngine(settings.database_url, queue_limit=settings.queue_size)
        self.blobs = BlobStore(settings.storage_url, settings.spool)
        self.room = Room(self.blobs.free_bytes, MEBIBYTE * settings.min_free_mb)
        self.watch = Watch(self.engine.store)
        self.housekeeping = Housekeeping(
            self.engine, self.blobs, keep_seconds=3600 * settings.keep_hours
        )
        self.watch.start()
        self.housekeeping.start()
        self.metrics.watch(self)
        self.metrics.gather(settings.metrics_folder)

    def drain(self) -> None:
        """Take no more work; who waits for a job that does not run is told to come back."""
        self.draining = True
        self._drained = time.monotonic()

    def gives_up(self, job: Job) -> bool:
        """Whether a caller should not wait here any longer for a job that is still open."""
        if not self.draining:
            return False
        over = time.monotonic() - self._drained > self.settings.grace_seconds
        return over or job.state == "queued"

    def stop(self) -> None:
        """Close everything; jobs go on in their workers."""
        self.draining = True
        self.watch.stop()
        self.housekeeping.stop()
        self.inspector.close()
        self.engine.close()

    def resolve(self, asked: str | None) -> WantedModel:
        """The installed model that a request means.

        Raises:
            OptionError: there is none.
        """
        return resolve(self.catalogue(), asked, self.default_model, self.model_states())

    def workers(self) -> list[Worker]:
        """Those that have lately said that they are there."""
        silent = self.engine.store.workers(silent_ms=int(1000 * self.settings.silence_seconds))
        gone = {worker.id for worker in silent}
        return [worker for worker in self.engine.workers() if worker.id not in gone]

    def model_states(self) -> dict[Key, State]:
        """What workers say of versions of models; one that is ready somewhere is not broken."""
        states: dict[Key, State] = {}
        for worker in self.workers():
            for told in worker.facts.get("versions", ()):
                key = (told["model"], told["version"], told["digest"])
                if states.get(key) != "ready":
                    states[key] = told["state"]
        return states

    def not_ready(self) -> NotReadyError | ShuttingDownError | None:
        """Why the service should get no requests now, or None when it should."""
        if self.draining:
            return ShuttingDownError("The service is shutting down.", retry_after=5)
        if any(worker.state == "ready" for worker in self.workers()):
            return None
        return NotReadyError(
            "No worker is ready: the model is being loaded and warmed up, or none runs.",
            retry_after=_RETRY_WHILE_WARMING,
        )

    def admit(self, caller: Principal, key: str | None = None) -> None:
        """Refuse before the body is read what could not be taken afterwards.

        Args:
            caller: who sends it.
            key: the idempotency key; a job that it has made already is no further one.

        Raises:
            ShuttingDownError: the process is going away.
            QueueFullError: as many jobs wait as may.
            TooManyJobsError: the caller has as many open jobs as it may.
            StorageQuotaError: the caller keeps too much.
        """
        if self.draining:
            raise ShuttingDownError("The service is shutting down. Try again.", retry_after=5)
        if self._has_made(caller, key):
            return
        waiting = self.engine.count("queued")
        if waiting >= self.settings.queue_size:
            raise self._queue_full(waiting)
        self._check_quota(caller, 0)

    def submit(self, form: SegmentForm, new: NewJob, caller: Principal) -> Submitted:
        """Make a job of a form, durable before this returns.

        Raises:
            QueueFullError: as many jobs wait as may.
            KeyReusedError: the idempotency key belongs to another request.
            TooManyJobsError, StorageQuotaError: as `admit`.
        """
        if not self._has_made(caller, new.idempotency_key):
            self._check_quota(caller, form.size)
        unneeded = True
        try:
            keep_inputs(self.blobs, form, new)
            submitted = self.engine.submit(new)
            unneeded = not submitted.is_new or submitted.job.cached
        except UNREACHABLE:
            unneeded = False  # the job may be there all the same; if not, housekeeping finds them
            raise
        except FullQueueError as full:
            raise self._queue_full(full.waiting) from None
        except ReusedKeyError:
            raise KeyReusedError(
                "Idempotency-Key",
                expected="the request that came with it the first time",
                got="other images or options",
                way_out="Use a new key for a new request.",
            ) from None
        finally:
            if unneeded:
                self.blobs.delete(f"inputs/{new.spec['upload']}")
        return submitted

    def cancel(self, job: Job) -> bool:
        """Cancel a job that waits or runs, and delete its images; whether there was one."""
        cancelled = self.engine.cancel(job.id)
        if cancelled:  # a worker that reads them now is told to stop as well
            self.metrics.count_cancelled()
            forget_inputs(self.blobs, job.spec)
        return cancelled

    def forget(self, job: Job) -> None:
        """Delete an ended job with its files."""
        self.engine.forget(job)
        self.housekeeping.forget(job)

    def _has_made(self, caller: Principal, key: str | None) -> bool:
        """Whether there is a job of the caller that came with this idempotency key."""
        if key is None:
            return False
        asked = NewJob(owner=caller.id, spec={}, idempotency_key=key)
        return self.engine.get(id_of(asked), caller.id) is not None

    def _check_quota(self, caller: Principal, incoming: int) -> None:
        if caller.limits == Limits():
            return
        open_jobs, stored = self.engine.store.held_by(caller.id)
        check_quota(caller, open_jobs=open_jobs, stored_bytes=stored, incoming_bytes=incoming)

    def _queue_full(self, waiting: int) -> QueueFullError:
        hands = max(1, self.engine.hands())
        seconds = self.engine.usual_seconds() * max(1, waiting) / hands
        return QueueFullError(
            f"{waiting} jobs wait already, about {seconds:.0f} seconds of work. Try again later.",
            retry_after=max(1, min(LONGEST_RETRY, math.ceil(seconds / max(1, waiting)))),
        )


def service_of(request: Request) -> Service:
    """The service behind a request."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
