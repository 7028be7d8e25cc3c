"""Four files in, one `Study` out, and whatever they are made of, this process stays well.

The result equals that of `model_core.imaging.study.load_study`; the differences are where it is
computed and that it may cost no more than `ReadingLimits`.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from model_core.errors import Cancelled, ImageError, InputError, StudyError
from model_core.imaging.study import Study, check_complete
from model_core.imaging.volume import Volume
from model_core.pipeline.objects import DicomObjects
from model_core.types import CONTRASTS, CancelCheck, Contrast
from service.reading.child import Errand, Task, Work
from service.reading.limits import ReadingLimits
from service.reading.message import (
    Account,
    Answer,
    Failed,
    FileSaid,
    Read,
    Refused,
    Stage,
    Written,
    hear,
)
from service.reading.nursery import Child, Nursery, ServerLostError
from service.reading.pages import NonsenseError, Pages
from service.reading.work import (
    DicomFiles,
    InspectTask,
    ObjectsTask,
    StudyTask,
    inspect_study,
    read_study,
    write_objects,
)

__all__ = ["Apart", "StudyReader", "Taken"]

logger = logging.getLogger("service.reading")

Cause = Literal["memory", "cpu", "wall", "crash", "nonsense"]
_CAUSES_OF_SIGNALS: Final[Mapping[int, Cause]] = {
    -signal.SIGKILL: "memory",  # not by us, so by a kernel that ran out of it
    -signal.SIGXCPU: "cpu",
    -signal.SIGALRM: "wall",
}
_Told = TypeVar("_Told")
Understand = Callable[[Answer, Pages], _Told]
"""Builds what a child said, or finds that it is nonsense."""
_LOOK_SECONDS: Final = 0.05
"""Between two questions whether the reading was cancelled."""
_CLOSE_SECONDS: Final = 15.0


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What was taken of what was sent.

    Attributes:
        decoded: checksum of each image as it was read.
        series: uid by contrast; empty for NIfTI.
        files: of each series; likewise.
    """

    decoded: Mapping[Contrast, str]
    series: Mapping[Contrast, str]
    files: Mapping[Contrast, tuple[FileSaid, ...]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Apart:
    """Four images, each on its own grid; see `model_core.pipeline.images.Images`."""

    volumes: Mapping[Contrast, Volume]
    taken: Taken
    warnings: tuple[str, ...]


class StudyReader:
    """Reads studies, each in a process of its own; may be used from several threads.

    Args:
        limits: what one study may cost.
        work: what a child does; another than the usual shows what becomes of a bad child.
    """

    def __init__(self, limits: ReadingLimits | None = None, *, work: Work = read_study) -> None:
        self.limits = limits or ReadingLimits()
        self._work = work
        self._nursery = Nursery()
        self._nursery.warm_up()
        self._running = 0
        self._closed = False
        self._changed = threading.Condition()

    def __enter__(self) -> StudyReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(
        self,
        source: Mapping[Contrast, Path] | DicomFiles,
        *,
        reference: Contrast = "t1",
        cancelled: CancelCheck | None = None,
    ) -> Study:
        """Read four images and make a study of them; see `take`."""
        return self.take(source, reference=reference, cancelled=cancelled)[0]

    def take(
        self,
        source: Mapping[Contrast, Path] | DicomFiles,
        *,
        reference: Contrast = "t1",
        cancelled: CancelCheck | None = None,
    ) -> tuple[Study, Taken]:
        """Read four images, make a study of them, and tell what was taken.

        Args:
            source: a path for each of t1, t1ce, t2, flair, or an archive of DICOM files.
            reference: the contrast on whose grid results are wanted.
            cancelled: asked many times a second.

        Raises:
            InputError: as `load_study`, or naming the limit that was hit.
            Cancelled: the caller, or `close`, wants it no more.
            ServerLostError: no process can be started, twice over.
        """
        task = self._study_task(source, reference)
        return self._send(task, partial(_study_of, task), cancelled)

    def read_apart(
        self,
        source: Mapping[Contrast, Path] | DicomFiles,
        *,
        cancelled: CancelCheck | None = None,
    ) -> Apart:
        """Read four images and leave each on its own grid; see `read`."""
        task = self._study_task(source, None)
        return self._send(task, partial(_apart_of, task), cancelled)

    def inspect(
        self,
        source: Mapping[Contrast, Path] | DicomFiles,
        *,
        cancelled: CancelCheck | None = None,
    ) -> dict[str, Any]:
        """Say what was sent (`model_core.recognition.inspection`), as plain JSON values."""
        task = InspectTask(source=source, limits=self.limits)
        (document,) = self._send(task, _documents_of, cancelled, work=inspect_study)
        told: dict[str, Any] = json.loads(document)
        return told

    def objects(
        self,
        task: ObjectsTask,
        labels: NDArray[np.uint8],
        *,
        cancelled: CancelCheck | None = None,
    ) -> DicomObjects:
        """Write the DICOM objects of a label map (X, Y, Z), internal labels."""
        given = np.asarray(labels, np.uint8, order="F").tobytes(order="F")
        seg, sr = self._send(task, _documents_of, cancelled, work=write_objects, given=given)
        return DicomObjects(seg=seg, sr=sr)

    def _study_task(
        self, source: Mapping[Contrast, Path] | DicomFiles, reference: Contrast | None
    ) -> StudyTask:
        if not isinstance(source, DicomFiles):
            check_complete(source)
            source = dict(source)
        return StudyTask(source=source, reference=reference, limits=self.limits)

    def _send(
        self,
        task: Task,
        understand: Understand[_Told],
        cancelled: CancelCheck | None,
        *,
        work: Work | None = None,
        given: bytes = b"",
    ) -> _Told:
        """Let a child do a task, and understand what it says; once more with a new fork server."""
        errand = Errand(task=task, work=work or self._work)
        with self._counted():
            try:
                return self._send_once(errand, understand, cancelled, given)
            except ServerLostError:
                logger.warning("the fork server was lost; a new one is started")
                return self._send_once(errand, understand, cancelled, given)

    def close(self) -> None:
        """End every reading and the fork server. Reading again is an error of the caller."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._running == 0, _CLOSE_SECONDS)
        self._nursery.close()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._changed:
            if self._closed:
                raise Cancelled("The reader is closed.")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _send_once(
        self,
        errand: Errand,
        understand: Understand[_Told],
        cancelled: CancelCheck | None,
        given: bytes,
    ) -> _Told:
        limits = errand.task.limits
        with Pages() as pages:
            if given:
                pages.give(given)
            with self._nursery.start(errand, pages.descriptors) as child:
                cause = self._attend(child, cancelled)
            account = hear(pages.read_account())
            if cause is not None:
                raise _end(cause, account, limits)
            return _understood(account, pages, limits, understand)

    def _attend(self, child: Child, cancelled: CancelCheck | None) -> Cause | None:
        """Wait until the child has ended, or end it; None if it ended as it should."""
        end = time.monotonic() + self.limits.wall_seconds
        while (code := child.wait(min(_LOOK_SECONDS, end - time.monotonic()))) is None:
            if self._closed or (cancelled is not None and cancelled()):
                child.kill()
                raise Cancelled("The reading was cancelled.")
            if time.monotonic() >= end:
                child.kill()
                return "wall"
        return None if code == 0 else _CAUSES_OF_SIGNALS.get(code, "crash")


def _understood(
    account: Account, pages: Pages, limits: ReadingLimits, understand: Understand[_Told]
) -> _Told:
    """Build what the child said, or raise it."""
    answer = account.answer
    if isinstance(answer, Refused):
        logger.debug("a study was refused", extra={"peak_mb": answer.peak_mb})
        raise answer.error()
    if isinstance(answer, Failed):
        raise _end(answer.cause, account, limits)
    if answer is not None:
        logger.debug("a study was read", extra={"peak_mb": answer.peak_mb})
        with suppress(NonsenseError, InputError):
            return understand(answer, pages)
    # Not "from" that error: its traceback would keep the volumes as long as someone keeps it.
    raise _end("nonsense", account, limits)


def _study_of(task: StudyTask, answer: Answer, pages: Pages) -> tuple[Study, Taken]:
    """Make the study anew from the child's numbers, by the rules that every study obeys.

    Raises:
        NonsenseError: the numbers are not what they were said to be.
        InputError: they break a rule.
    """
    if not isinstance(answer, Read) or answer.reference is None:
        raise NonsenseError
    if answer.reference != task.reference:
        raise NonsenseError
    volumes = _volumes_of(answer, pages, task.limits)
    native = volumes[answer.reference]
    return Study(volumes, answer.reference, native, answer.warnings), _taken(answer)


def _apart_of(task: StudyTask, answer: Answer, pages: Pages) -> Apart:
    """Likewise, for images that keep their grids."""
    if not isinstance(answer, Read) or answer.reference is not None:
        raise NonsenseError
    volumes = _volumes_of(answer, pages, task.limits)
    return Apart(volumes=volumes, taken=_taken(answer), warnings=answer.warnings)


def _taken(answer: Read) -> Taken:
    return Taken(decoded=answer.decoded, series=answer.series, files=answer.files)


def _volumes_of(answer: Read, pages: Pages, limits: ReadingLimits) -> dict[Contrast, Volume]:
    volumes: dict[Contrast, Volume] = {}
    for contrast in CONTRASTS:
        said = answer.volumes[contrast]
        if said.voxels > limits.voxels:
            raise NonsenseError
        affine = np.array(said.affine, dtype=np.float64).reshape(4, 4)
        array = pages.map_volume(contrast, said.shape)
        volumes[contrast] = Volume(array, affine, said.frame(), said.warnings)
    return volumes


def _documents_of(answer: Answer, pages: Pages) -> list[bytes]:
    if not isinstance(answer, Written):
        raise NonsenseError
    return pages.documents(answer.sizes)


def _end(cause: Cause, account: Account, limits: ReadingLimits) -> InputError:
    """The error for a reading that came to no good end."""
    failed = account.answer.exception if isinstance(account.answer, Failed) else None
    facts = {"cause": cause, "stage": account.stage, "exception": failed}
    logger.warning("a reading process failed", extra=facts)
    smaller = "Crop the images to the head, or ask the operator for a higher limit."
    again = "The file may be damaged: export the image again."
    readable = "an image that can be read"
    expected, got, way_out = {
        "memory": (f"{readable} in {limits.memory_mb} MiB", "one that needs more", smaller),
        "cpu": (
            f"{readable} in {limits.cpu_seconds:g} s of computing",
            "one that takes more",
            smaller,
        ),
        "wall": (f"{readable} within {limits.wall_seconds:g} s", "one that takes longer", smaller),
        "crash": (readable, "one that ended the process reading it", again),
        "nonsense": (readable, "one that left no sensible result", again),
    }[cause]
    kind, argument = _at_fault(account.stage)
    return kind(argument, expected=expected, got=got, way_out=way_out)


def _at_fault(stage: Stage) -> tuple[type[InputError], str]:
    if stage in ("start", "study"):
        return StudyError, "study"
    return ImageError, "dicom" if stage == "objects" else stage
