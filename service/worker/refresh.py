"""A thread that looks for new versions of the models that serve, beside the jobs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from service.observability import describe_exception
from service.worker.registry import ModelRegistry

logger = logging.getLogger("service.worker")

LOOK_SECONDS: Final = 2.0
"""Between two looks into the folders of models."""


class Refresher(threading.Thread):
    """Lets new versions in.

    Args:
        registry: the models.
        changed: called after each exchange and each version that is broken.
        seconds: between two looks.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        changed: Callable[[], None] = lambda: None,
        *,
        seconds: float = LOOK_SECONDS,
    ) -> None:
        super().__init__(name="models", daemon=True)
        self._registry, self._changed, self._seconds = registry, changed, seconds
        self._left = threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        while not self._left.wait(self._seconds):
            try:
                if self._registry.refresh() and not self._left.is_set():
                    self._changed()
            except Exception as error:  # noqa: BLE001 - a folder or the database may be away
                logger.warning("no look at the models", extra={**describe_exception(error)})

    def stop(self) -> None:
        """Look no more; a version that is being loaded now is not waited for."""
        self._left.set()
