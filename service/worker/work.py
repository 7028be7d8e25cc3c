"""One attempt at one job: read the images, segment, keep the label map.

Images are decoded by `service.reading`, in a child process with limits; here they are arrays.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from model_core.errors import Cancelled, KernelMemoryError
from model_core.inference.retry import is_out_of_memory
from model_core.inference.sliding_window import INFER_STAGE
from model_core.pipeline.answer import Answer, answer
from service.dicomweb.servers import DicomwebServer
from service.jobs.blobs import BlobStore, archive_key, result_key
from service.jobs.executor import Attempt, JobFailedError, Outcome
from service.jobs.records import Job
from service.metrics import RunMetrics
from service.observability import Stopwatch, name_job
from service.problems import problem_document
from service.reading import StudyReader
from service.study_jobs import forget_inputs, known_as
from service.tracing import JobSpan
from service.version import release
from service.worker.intake import Intake
from service.worker.registry import ModelRegistry
from service.worker.results import Leaver, Leavings, segment_options

logger = logging.getLogger("service.worker")


class StudyWork:
    """Does attempts, one after the other, on one thread at a time.

    Args:
        registry: models, loaded on this process's device.
        blobs: where images wait and label maps go.
        reader: decodes images.
        metrics: told of every attempt.
        servers: DICOM archives that results may be pushed to, by name.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        blobs: BlobStore,
        reader: StudyReader,
        metrics: RunMetrics,
        servers: Mapping[str, DicomwebServer] | None = None,
    ) -> None:
        self._registry, self._blobs, self._metrics = registry, blobs, metrics
        self._intake, self._leaver = Intake(blobs, reader), Leaver(reader, servers or {})

    def __call__(self, attempt: Attempt) -> Outcome:
        """Do one attempt.

        Raises:
            JobFailedError: with the problem, as the API will answer it.
            Cancelled: the attempt was told to stop.
        """
        name_job(attempt.job.id)  # what the log and a problem name
        if attempt.retry is not None:
            self._metrics.retries.labels(attempt.retry).inc()
        span = _span(attempt)
        with span.current():
            try:
                return self._finished(attempt, _Following(attempt, span, self._metrics))
            except JobFailedError as failure:
                span.fail(str(failure.problem["type"]))
                raise
            except Cancelled:
                span.note(stopped=True)
                raise

    def ended(self, job: Job) -> None:
        """A job has ended, in whatever way: its images are not needed any more."""
        self._metrics.count_ended(job.state)
        forget_inputs(self._blobs, job.spec)

    def dropped(self, outcome: Outcome) -> None:
        """A result came too late; nobody can ask for it."""
        self._blobs.delete(outcome.result["key"])
        self._blobs.delete(outcome.result["archive"])

    def _finished(self, attempt: Attempt, following: _Following) -> Outcome:
        try:
            return self._do(attempt, following)
        except Cancelled:
            raise
        except Exception as error:
            if attempt.cancelled():  # its images may be gone, also while they are read
                raise Cancelled("The attempt has become pointless.") from None
            raise self._failed(_told_apart(error)) from error
        except BaseException as error:  # a SystemExit of a library must not end the worker
            raise self._failed(RuntimeError(type(error).__name__)) from error

    def _do(self, attempt: Attempt, following: _Following) -> Outcome:
        spec = attempt.job.spec
        with ExitStack() as files:
            watch = Stopwatch()
            following("read", 0, 0)
            taken = self._intake.take(spec, files, progress=following, cancelled=attempt.cancelled)
            read_seconds = watch.seconds()
            following("load", 0, 0)
            model = self._registry.acquire(
                spec["model"], spec["model_version"] if spec.get("exact") else None
            )
            segmenter = model.segmenter
            facts = {"model.version": segmenter.card.version, "device": segmenter.device}
            following.span.note(**facts)
            found = answer(
                segmenter,
                taken.prepared,
                segment_options(spec),
                warnings=taken.warnings,
                progress=following,
                cancelled=attempt.cancelled,
            )
            stages = {
                "read": read_seconds,
                "queue": _waited(attempt.job),
                **found.segmentation.stage_seconds,
            }
            following("encode", 0, 0)
            watch = Stopwatch()
            left = self._leaver.leave(
                found, taken, attempt.job, model.bundle, cancelled=attempt.cancelled
            )
        outcome = self._keep(attempt, found, left, stages, watch)
        if attempt.job.cache_key and "study" in spec:  # another version may have run than was meant
            known = known_as(spec, model.bundle.digest, release())
            outcome = replace(outcome, cache_key=known)
        steps = found.segmentation.memory_steps
        if steps:
            logger.warning("memory ran out", extra={"steps": list(steps)})
        self._metrics.observe(stages, found.segmentation.window_seconds, steps)
        return outcome

    def _keep(
        self,
        attempt: Attempt,
        found: Answer,
        left: Leavings,
        stages: dict[str, float],
        watch: Stopwatch,
    ) -> Outcome:
        """Make the files durable, before the job table speaks of them."""
        key = result_key(attempt.job.id, attempt.number)
        packed = archive_key(attempt.job.id, attempt.number)
        self._blobs.write(left.archive, packed)
        self._blobs.write(found.label_map, key)
        stages["encode"] = watch.seconds()
        rounded = {stage: round(seconds, 4) for stage, seconds in stages.items()}
        result: dict[str, Any] = {
            "key": key,
            "archive": packed,
            "sha256": hashlib.sha256(found.label_map).hexdigest(),
            "bytes": len(found.label_map),
            "report": {**found.report(), **left.report, "stage_seconds": rounded},
        }
        return Outcome(result=result, stored_bytes=len(found.label_map) + len(left.archive))

    def _failed(self, error: Exception) -> JobFailedError:
        return JobFailedError(problem_document(error))


def _told_apart(error: Exception) -> Exception:
    """What PyTorch says where memory ran out beside the network, in the words of our own error."""
    if not is_out_of_memory(error):
        return error
    used_up = KernelMemoryError("The memory of the device or of the host is used up.")
    return used_up.with_traceback(error.__traceback__)


class _Following:
    """Tells an attempt, its span and the count of windows how far the work is."""

    def __init__(self, attempt: Attempt, span: JobSpan, metrics: RunMetrics) -> None:
        self.span = span
        self._attempt, self._metrics = attempt, metrics
        self._done = self._windows = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Another stage, or another window."""
        self._attempt.progress(stage, done, total)
        self.span.stage(stage)
        if stage == INFER_STAGE:
            new = done - self._done if done >= self._done else done  # it may have begun anew
            self._done, self._windows = done, self._windows + new
            self._metrics.windows.inc(new)
            self.span.note(windows=self._windows)


def _span(attempt: Attempt) -> JobSpan:
    """Of an attempt; how long a job waited is known of its first one only."""
    job, first = attempt.job, attempt.number == 1
    queued = (job.created, job.started or job.created) if first else None
    span = JobSpan(job.spec, queued=queued)
    span.note(**{"job.id": job.id, "model": job.spec["model"], "attempt": attempt.number})
    if attempt.retry is not None:
        span.note(retry=attempt.retry)
    return span


def _waited(job: Job) -> float:
    return max(0.0, ((job.started or job.created) - job.created) / 1000)
