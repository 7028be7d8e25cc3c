"""What happens inside a reading process: limits on itself first, then the files.

It runs as a fork of the fork server, knows no torch and no HTTP, and answers through the anonymous
files that its parent made.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Final

from model_core.errors import InputError
from model_core.imaging.study import Study
from model_core.pipeline.images import Images
from model_core.types import CONTRASTS, Contrast
from service.reading.limits import ReadingLimits
from service.reading.message import ACCOUNT_BYTES, Failed, Read, Refused, Stage, StageNote, Written
from service.reading.pages import contents, fill, pour, say

__all__ = ["Errand", "Report", "Task", "Work"]

_MEBIBYTE: Final = 2**20
_BYTES_OF_A_VOXEL: Final = 4
_OPEN_FILES: Final = 64
_NICE: Final = 5
_ALARM_AFTER: Final = 1.0
"""Seconds past its time after which a child ends itself, should its parent not do it."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be done within limits; kinds of work add what they need to know."""

    limits: ReadingLimits


class Report:
    """The child's end of the anonymous files."""

    def __init__(self, volumes: Mapping[Contrast, int], account: int) -> None:
        self._volumes, self._account = volumes, account

    def begin(self, stage: Stage) -> None:
        """Say what comes now, so that a sudden death has a place."""
        say(self._account, StageNote(stage=stage).line())

    def read(self, study: Study, images: Images | None = None) -> None:
        """Hand a study over, and what is known of the images it was made of."""
        for contrast, volume in study.volumes.items():
            fill(self._volumes[contrast], volume.array)
        say(self._account, Read.of(study, images, peak_mb=_peak_mb()).line())

    def apart(self, images: Images) -> None:
        """Hand images over, each on its own grid."""
        for contrast, volume in images.volumes.items():
            fill(self._volumes[contrast], volume.array)
        say(self._account, Read.apart(images, peak_mb=_peak_mb()).line())

    def given(self) -> bytes:
        """What the parent wrote for the child to work on."""
        return contents(self._volumes[CONTRASTS[0]])

    def written(self, documents: Sequence[bytes]) -> None:
        """Hand documents over, in the files after the one that was given."""
        for contrast, document in zip(CONTRASTS[1:], documents, strict=False):
            pour(self._volumes[contrast], document)
        sizes = tuple(len(document) for document in documents)
        say(self._account, Written(sizes=sizes, peak_mb=_peak_mb()).line())

    def refuse(self, error: InputError) -> None:
        """Hand the refusal over."""
        say(self._account, Refused.of(error, peak_mb=_peak_mb()).line())

    def fail(self, error: Exception) -> None:
        """Say that, and never why: an exception's message may quote a file."""
        short = isinstance(error, MemoryError)
        name = type(error).__name__
        say(self._account, Failed(cause="memory" if short else "crash", exception=name).line())


Work = Callable[[Any, Report], None]
"""Takes a task of its own kind."""


@dataclass(frozen=True, kw_only=True)
class Errand:
    """A task on its way into a child; the fork server runs whatever has a `_bootstrap`.

    Not a `multiprocessing.Process`: that would import the parent's main module into every child,
    and with it, in a worker, torch.
    """

    task: Task
    work: Work

    def _bootstrap(self, parent_sentinel: int) -> int:
        os.close(parent_sentinel)
        inherited: list[int] | None = forkserver.get_inherited_fds()
        assert inherited is not None
        *volumes, account = inherited
        report = Report(dict(zip(CONTRASTS, volumes, strict=True)), account)
        try:
            confine(self.task.limits)
            self.work(self.task, report)
        except InputError as error:
            report.refuse(error)
        except Exception as error:  # noqa: BLE001 - the parent says it, without its message
            report.fail(error)
        return 0


def confine(limits: ReadingLimits) -> None:
    """Take from this process, for good, what reading a study does not need."""
    os.nice(_NICE)
    _be_the_first_to_go()
    signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds + _ALARM_AFTER)
    seconds = math.ceil(limits.cpu_seconds)
    # The signal that says why comes at the soft limit only.
    _lower(resource.RLIMIT_CPU, seconds, seconds + 1)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NPROC, 0)  # no further process and no thread; root is exempt
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_FSIZE, max(limits.voxels * _BYTES_OF_A_VOXEL, ACCOUNT_BYTES))
    if (held := _address_space()) is not None:
        _lower(resource.RLIMIT_AS, held + limits.memory_mb * _MEBIBYTE)


def _lower(kind: int, soft: int, hard: int | None = None) -> None:
    """Set a limit, unless a stricter one is in force."""
    _, allowed = resource.getrlimit(kind)
    hard = soft if hard is None else hard
    if allowed != resource.RLIM_INFINITY:
        soft, hard = min(soft, allowed), min(hard, allowed)
    resource.setrlimit(kind, (soft, hard))


def _address_space() -> int | None:
    """Bytes of address space of this process; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:  # macOS, where the limit would not be kept either
        return None
    return pages * resource.getpagesize()


def _be_the_first_to_go() -> None:
    """Where memory runs out, let the kernel take this process and not the one with the model."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _peak_mb() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (_MEBIBYTE if sys.platform == "darwin" else 1024)
