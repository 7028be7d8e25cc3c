"""A child that notices when its supervisor is gone, so that nobody is left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Final

PARENT_VARIABLE: Final = "SEGMAMBA_PARENT"
"""Process number of the supervisor; unset where a process runs by itself."""
_LOOK_SECONDS: Final = 1.0


def leave_with_parent() -> None:
    """From now on, ask this process to leave when its supervisor is gone."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is not None:
        threading.Thread(target=_look, args=(int(parent),), name="parent", daemon=True).start()


def _look(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
