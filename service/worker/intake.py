"""From the files of a job to a study that the network may look at, within limits."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from model_core.preparation import PreparedStudy, PrepareOptions, prepare_study
from model_core.preparation.prepared import as_it_is
from model_core.types import CancelCheck, Contrast, Progress
from service.form import DICOM
from service.jobs.blobs import BlobStore
from service.reading import DicomFiles, StudyReader, Taken
from service.study_options import ReadingOptions


@dataclass(frozen=True, eq=False, kw_only=True)
class TakenIn:
    """What was taken in.

    Attributes:
        prepared: the study, and the way back.
        taken: what was read, before any preparation.
        warnings: about the images, beside those of the study.
        dicom: the files, where the study came as DICOM.
    """

    prepared: PreparedStudy
    taken: Taken
    warnings: tuple[str, ...] = ()
    dicom: DicomFiles | None = None


class Intake:
    """Takes the studies of jobs in.

    Args:
        blobs: where images wait.
        reader: decodes them.
    """

    def __init__(self, blobs: BlobStore, reader: StudyReader) -> None:
        self._blobs, self._reader = blobs, reader

    def take(
        self,
        spec: Mapping[str, Any],
        files: ExitStack,
        *,
        progress: Progress,
        cancelled: CancelCheck,
    ) -> TakenIn:
        """Read a job's images and prepare them as it asks.

        Args:
            spec: of the job.
            files: keeps what is on the disk until the caller is done with it.
            progress: told of the steps of preparation.
            cancelled: asked many times a second.

        Raises:
            InputError: as the reader and `prepare_study`.
            Cancelled: `cancelled` answered yes.
        """
        options = ReadingOptions(**spec["reading"])
        source = self._source(spec["inputs"], options, files)
        dicom = source if isinstance(source, DicomFiles) else None
        if options.preprocess == "none":
            study, taken = self._reader.take(source, reference=options.grid, cancelled=cancelled)
            return TakenIn(prepared=as_it_is(study), taken=taken, dicom=dicom)
        read = self._reader.read_apart(source, cancelled=cancelled)
        sign = _SignOfLife(progress, cancelled)
        prepared = prepare_study(
            read.volumes,
            PrepareOptions(mode=options.preprocess, onto=options.grid, n4=options.n4),
            progress=sign.progress,
            cancelled=sign.cancelled,
        )
        return TakenIn(prepared=prepared, taken=read.taken, warnings=read.warnings, dicom=dicom)

    def _source(
        self, inputs: Mapping[str, str], options: ReadingOptions, files: ExitStack
    ) -> Mapping[Contrast, Path] | DicomFiles:
        here = {name: files.enter_context(self._blobs.as_file(key)) for name, key in inputs.items()}
        if DICOM not in here:
            return cast("Mapping[Contrast, Path]", here)
        return DicomFiles(
            archive=here[DICOM],
            workspace=files.enter_context(self._blobs.workspace("dicom-")),
            series=options.series,
        )


class _SignOfLife:
    """Tells the last step again whenever it is asked whether to stop.

    A skull stripper may take longer than a window ever does. It runs in a process with a time limit
    of its own, and whoever waits for it asks several times a second: that is no hang.
    """

    def __init__(self, progress: Progress, cancelled: CancelCheck) -> None:
        self._progress, self._cancelled = progress, cancelled
        self._last = ("prepare", 0, 0)

    def progress(self, stage: str, done: int, total: int) -> None:
        self._last = (stage, done, total)
        self._progress(stage, done, total)

    def cancelled(self) -> bool:
        self._progress(*self._last)
        return self._cancelled()
