"""A thread that keeps what the running job has on this disk, and removes what a killed worker left.

Where images wait in a bucket, no API need run on this machine: nobody else would tidy up here.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from service.housekeeping import ABANDONED_SECONDS
from service.jobs.blobs import BlobStore

logger = logging.getLogger("service.worker")

_EVERY_SECONDS: Final = 60.0


class SpoolKeeper(threading.Thread):
    """Tidies up in the spool once a minute, for the first time at once.

    Args:
        blobs: whose spool.
        seconds: between two rounds.
    """

    def __init__(self, blobs: BlobStore, *, seconds: float = _EVERY_SECONDS) -> None:
        super().__init__(name="spool", daemon=True)
        self._blobs, self._seconds = blobs, seconds
        self._left = threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        while True:
            try:
                self._blobs.refresh_spool()
                self._blobs.clean_spool(ABANDONED_SECONDS, time.time())
            except OSError as error:
                logger.warning("could not tidy up", extra={"exception": type(error).__name__})
            if self._left.wait(self._seconds):
                return

    def stop(self) -> None:
        """Look no more."""
        self._left.set()
