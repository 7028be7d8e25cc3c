"""What is tidied up by itself: ended jobs past their time, and files that no job speaks of."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import Final

import sqlalchemy as sa

from service.jobs.blobs import BlobStore
from service.jobs.engine import JobEngine
from service.jobs.records import Job
from service.study_jobs import forget_inputs

logger = logging.getLogger("service")

_EVERY_SECONDS: Final = 60.0
_THOROUGH_ROUNDS: Final = 60
"""One in so many looks at every result."""
_ASKED_AT_ONCE: Final = 500
ABANDONED_SECONDS: Final = 3600.0
"""Age of an upload after which its request has certainly ended."""


class Housekeeping:
    """A thread that tidies up once a minute, thoroughly once an hour.

    Several processes may do it at a time.

    Args:
        engine: whose ended jobs.
        blobs: their files.
        keep_seconds: how long an ended job and its result stay.
    """

    def __init__(self, engine: JobEngine, blobs: BlobStore, *, keep_seconds: float) -> None:
        self._engine, self._blobs, self._keep = engine, blobs, keep_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin, with a first round at once."""
        self._thread.start()

    def stop(self) -> None:
        """End after the running round."""
        self._stop.set()
        self._thread.join(5)

    def tidy(self, *, thoroughly: bool = True) -> int:
        """One round; how many jobs were forgotten.

        Args:
            thoroughly: also look at every result that is kept, which may be many.
        """
        gone = self._engine.sweep(self._keep, self.forget)
        self._blobs.clean_spool(ABANDONED_SECONDS, time.time())
        self._drop_abandoned_inputs()
        if thoroughly:
            self._drop_abandoned_results()
        return gone

    def forget(self, job: Job) -> None:
        """Delete the files of a job that is gone, but a result that other jobs share."""
        forget_inputs(self._blobs, job.spec)
        for result in self._engine.orphans([job.source or job.id]):
            self._blobs.delete(f"results/{result}")

    def _drop_abandoned_inputs(self) -> None:
        """Inputs of ended jobs, and those that were kept for a job that was never written."""
        for upload, age in self._blobs.ages("inputs"):
            if age > ABANDONED_SECONDS and not self._engine.uses(upload):
                self._blobs.delete(f"inputs/{upload}")

    def _drop_abandoned_results(self) -> None:
        """Results of jobs that were deleted while their worker died, or the storage was away."""
        ages = self._blobs.ages("results")
        old = [result for result, age in ages if age > ABANDONED_SECONDS]
        for first in range(0, len(old), _ASKED_AT_ONCE):
            for result in self._engine.orphans(old[first : first + _ASKED_AT_ONCE]):
                self._blobs.delete(f"results/{result}")

    def _run(self) -> None:
        for number in itertools.count():
            try:
                gone = self.tidy(thoroughly=number % _THOROUGH_ROUNDS == 0)
                if gone:
                    logger.info("ended jobs forgotten", extra={"jobs": gone})
            except (OSError, sa.exc.SQLAlchemyError) as error:
                logger.warning("could not tidy up", extra={"exception": type(error).__name__})
            if self._stop.wait(_EVERY_SECONDS):
                return
