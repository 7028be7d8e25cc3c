"""Tell the C library to keep freed memory for the next tensor, in programs that segment or train.

A network on a CPU frees and asks for blocks of hundreds of megabytes all the time. By default
glibc gives each back to the kernel at once, and the next one is handed over page by page, zeroed:
a fifth to a half of the time of a small SegMamba. The price is that the process keeps its peak.

All threads share one arena: the arenas of other threads than the first cannot hold such blocks, so
a worker thread would not profit.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2
_MMAP_MAX: Final = -4
_ARENA_MAX: Final = -8
_PAD_BYTES: Final = 64 * 2**20


def keep_freed_memory() -> bool:
    """Set the allocator of this whole process; False where it is not glibc's, which is no harm."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: _PAD_BYTES}
    accepted = [mallopt(parameter, value) == 1 for parameter, value in settings.items()]
    return all(accepted)
