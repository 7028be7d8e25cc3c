"""pydicom kept quiet: its warnings and log lines repeat values out of patients' headers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_NEVER: Final = logging.CRITICAL + 1


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Let no warning and no log line of pydicom out meanwhile; afterwards all is as it was.

    Warning filters belong to the whole process: other threads are quiet meanwhile, too.
    """
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(_NEVER)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
