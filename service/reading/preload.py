"""What the fork server loads once, so that every child begins with it: NumPy and our readers.

No torch, no HTTP, no threads: a child is a copy of this process and takes milliseconds to make.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from importlib import import_module
from typing import Final

__all__ = ["get_ready"]

_THREAD_COUNTS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def get_ready() -> None:
    """Load everything that a child needs, and leave it to the parent when to end."""
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        # A service that is told to stop lets its running work end, and this is part of it. The
        # fork server goes when its parent does; a child is killed.
        signal.signal(signal_number, signal.SIG_IGN)
    for variable in _THREAD_COUNTS:  # before NumPy: a pool of threads does not survive a fork
        os.environ[variable] = "1"
    import_module("service.reading.work")
    gc.freeze()  # a collection in a child would copy the pages of all that was loaded here


if "multiprocessing.forkserver" in sys.orig_argv[-1]:  # importing it elsewhere changes nothing
    get_ready()
