"""The sample study: a generated head, drawn once by a process of its own and kept.

The process that listens stays light: it opens no image and loads no NumPy (`tests/service`).
"""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from model_core.types import CONTRASTS, Contrast
from service.errors import NotReadyError

logger = logging.getLogger("service.page")

SEED: Final = 3
SIZE: Final = "full"
"""Of the BraTS volume, so that figures and flags mean what they mean for a head."""
_SECONDS: Final = 180.0
_FAILED_SECONDS: Final = 60.0
"""How long a failure is remembered, so that requests cannot keep a processor busy with it."""
_DRAWING_SECONDS: Final = 3
"""After which whoever comes while it is drawn asks again."""
_SEGMAMBA: Final = "from model_core.cli.main import main; main()"
_drawing = threading.Lock()
_failed: Final[dict[Path, float]] = {}
"""Folder → when it could not be drawn, by the monotonic clock."""


def sample_file(data_dir: Path, contrast: Contrast) -> Path:
    """One image of the sample study, drawn now if it has not been before.

    Only the first caller waits for the drawing: a thread is held by one request, not by each.

    Args:
        data_dir: the service's data folder, where it is kept.
        contrast: which image.

    Raises:
        NotReadyError: it is being drawn, or could not be drawn a moment ago or now.
    """
    folder = data_dir.absolute() / "sample"
    if not _is_whole(folder):
        if not _drawing.acquire(blocking=False):
            raise NotReadyError("The sample study is being drawn.", retry_after=_DRAWING_SECONDS)
        try:
            _draw_once(folder)
        finally:
            _drawing.release()
    return _paths(folder)[contrast]


def _paths(folder: Path) -> Mapping[Contrast, Path]:
    return {one: folder / f"Phantom_{SEED:04d}_{one}.nii.gz" for one in CONTRASTS}


def _is_whole(folder: Path) -> bool:
    return all(path.is_file() for path in _paths(folder).values())


def _draw_once(folder: Path) -> None:
    """Draw it unless it has been drawn meanwhile or a moment ago could not be."""
    if _is_whole(folder):
        return
    left = _failed.get(folder, -math.inf) + _FAILED_SECONDS - time.monotonic()
    if left > 0:
        raise _undrawable(math.ceil(left))
    try:
        _draw(folder)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("no sample study", extra={"exception": type(error).__name__})
        _failed[folder] = time.monotonic()
        raise _undrawable(math.ceil(_FAILED_SECONDS)) from error


def _undrawable(seconds: int) -> NotReadyError:
    return NotReadyError(
        "The sample study could not be drawn; the log says why.", retry_after=seconds
    )


def _draw(folder: Path) -> None:
    """Have ``segmamba phantom`` write it beside, and put it in place once it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".sample-", dir=folder.parent) as beside:
        made = Path(beside) / "made"
        command = [sys.executable, "-c", _SEGMAMBA, "phantom", str(made)]
        command += ["--seed", str(SEED), "--size", SIZE]
        subprocess.run(  # noqa: S603 - our own command line
            command, check=True, timeout=_SECONDS, capture_output=True
        )
        if not _is_whole(folder):  # another process on the same folder may have been faster
            made.replace(folder)
