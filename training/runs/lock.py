"""Who works on a run: one process at a time, and others can ask whether there is one.

A lock of the operating system, not a note: it is gone with the process, however that ended. Record
locks (``lockf``) are used because worker processes do not inherit them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from training.faults import NotNowError

try:
    import fcntl
except ImportError:  # Windows: runs work, only nobody can tell whether one is going on
    fcntl = None  # type: ignore[assignment]

_PATIENCE_SECONDS = 1.0
_held_here: set[Path] = set()
"""A process never sees its own record locks, and closing the file anywhere would free them."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock file `path` (made if absent) for the time of the block.

    Raises:
        NotNowError: another process, or another part of this one, holds it.
    """
    place = path.resolve()
    if place in _held_here:
        raise _taken()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if not _lock(file):
            raise _taken()
        _held_here.add(place)
        try:
            yield
        finally:
            _held_here.discard(place)


def is_held(path: Path) -> bool | None:
    """Whether a process holds `path`; ``None`` where that cannot be known."""
    if path.resolve() in _held_here:
        return True
    if fcntl is None or not path.exists():
        return None
    try:
        with path.open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _lock(file: BinaryIO) -> bool:
    """Try for a moment: one who only asks holds the lock for an instant as well."""
    if fcntl is None:
        return True
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() >= until:
                return False
            time.sleep(0.05)
        except OSError:
            return True  # a file system without locks must not keep anyone from training
        else:
            return True


def _taken() -> NotNowError:
    return NotNowError(
        "name",
        expected="a run that no process works on",
        got="one that is being trained now",
        way_out="Wait for it, stop it with Ctrl-C, or give the new run another --name.",
    )
