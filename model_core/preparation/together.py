"""Several registrations side by side, each on a thread of its own, stopped together.

SimpleITK lets other Python threads run while it computes. The caller's functions are called from
the caller's own thread only.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event

from model_core.cpu import usable_cpus
from model_core.imaging.volume import Volume
from model_core.preparation.alignment import Alignment, align
from model_core.preparation.watch import POLL_SECONDS, Watch, timed
from model_core.types import Contrast

STAGE = "register"
Timed = tuple[Alignment, float]
"""An alignment and the seconds that it took."""


def align_all(
    fixed: Volume, moving: Mapping[Contrast, Volume], watch: Watch
) -> dict[Contrast, Timed]:
    """Lay several contrasts on one.

    Args:
        fixed: the contrast that stays.
        moving: the others.
        watch: who is told, and who may stop.

    Raises:
        StudyError: one of them cannot be laid on the fixed one.
        Cancelled: the caller wants to stop.
    """
    halt = Event()

    def one(contrast: Contrast) -> Timed:
        with timed() as clock:
            alignment = align(fixed, moving[contrast], contrast=contrast, stop=halt.is_set)
        return alignment, clock.seconds

    with ThreadPoolExecutor(min(len(moving), usable_cpus())) as pool:
        futures = {contrast: pool.submit(one, contrast) for contrast in moving}
        try:
            _wait(set(futures.values()), watch)
        except BaseException:
            halt.set()
            pool.shutdown(cancel_futures=True)
            raise
    return {contrast: future.result() for contrast, future in futures.items()}


def _wait(pending: set[Future[Timed]], watch: Watch) -> None:
    """Until all have ended well; the first that fails ends the waiting."""
    total = len(pending)
    watch.tell(STAGE, 0, total)
    while pending:
        done, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        watch.stop_if_asked()
        for future in done:
            future.result()
        if done:
            watch.tell(STAGE, total - len(pending), total)
