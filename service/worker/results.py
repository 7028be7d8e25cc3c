"""All that a job leaves behind: its label map, its objects, its account, in one archive."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from model_core.cpu import usable_cpus
from model_core.errors import InputError
from model_core.inference.segmentation import SegmentOptions
from model_core.pipeline.answer import Answer
from model_core.pipeline.files import SEG, SR, archive_of, result_files
from model_core.pipeline.objects import DicomObjects, algorithm_of, measurements_of
from model_core.provenance.manifest import FileRecord
from model_core.provenance.record import RunFacts, manifest_of
from model_core.types import CONTRASTS, CancelCheck, Contrast
from service.dicomweb.errors import ArchiveError
from service.dicomweb.push import push
from service.dicomweb.servers import DicomwebServer, choose_server
from service.jobs.records import Job
from service.reading import ObjectsTask, StudyReader
from service.study_options import ReadingOptions
from service.worker.intake import TakenIn

if TYPE_CHECKING:
    from model_core.catalogue import InstalledBundle
    from model_core.provenance.manifest import RunManifest

logger = logging.getLogger("service.worker")


@dataclass(frozen=True, kw_only=True)
class Leavings:
    """What is kept of a run beside its label map, and what its report says of it.

    Attributes:
        archive: all files, as one zip archive.
        report: members for the report.
    """

    archive: bytes
    report: Mapping[str, Any]


class Leaver:
    """Makes what is kept of runs.

    Args:
        reader: opens DICOM headers, within limits.
        servers: the archives that results may be pushed to.
    """

    def __init__(self, reader: StudyReader, servers: Mapping[str, DicomwebServer]) -> None:
        self._reader, self._servers = reader, servers

    def leave(
        self,
        answer: Answer,
        taken: TakenIn,
        job: Job,
        bundle: InstalledBundle,
        *,
        cancelled: CancelCheck,
    ) -> Leavings:
        """Write every file of a run, and push the DICOM objects where the job asks for it.

        An archive that cannot be reached fails no job: the receipt says so, and the files are kept.
        """
        objects, trouble = self._objects(answer, taken, job, cancelled)
        files = result_files(
            answer,
            _manifest(answer, taken, job, bundle),
            objects,
            prepared=taken.prepared,
            card=bundle.card,
            images=ReadingOptions(**job.spec["reading"]).images,
        )
        receipt = self._pushed(job.spec.get("push"), files)
        report: dict[str, Any] = {"files": sorted(files), "push": receipt}
        return Leavings(archive=archive_of(files), report={**report, **trouble})

    def _objects(
        self, answer: Answer, taken: TakenIn, job: Job, cancelled: CancelCheck
    ) -> tuple[DicomObjects | None, dict[str, Any]]:
        """SEG and SR, or why there are none; a label map is too good to be lost for them."""
        if taken.dicom is None:
            return None, {}
        options = ReadingOptions(**job.spec["reading"])
        native, labels = answer.segmentation.native, answer.segmentation.labels
        task = ObjectsTask(
            source=taken.dicom,
            uid=taken.taken.series[options.grid],
            shape=native.shape,
            affine=tuple(float(number) for number in native.affine.flat),
            algorithm=algorithm_of(answer.segmentation),
            measurements=tuple(measurements_of(answer.statistics)),
            created=_started(job),
            kind=options.seg_type,  # type: ignore[arg-type]  # checked when it was parsed
            limits=self._reader.limits,
        )
        try:
            return self._reader.objects(task, labels, cancelled=cancelled), {}
        except InputError as error:
            logger.warning("no DICOM objects", extra={"exception": type(error).__name__})
            return None, {"dicom_objects": str(error)}

    def _pushed(self, name: str | None, files: Mapping[str, bytes]) -> dict[str, Any] | None:
        if name is None:
            return None
        objects = [files[one] for one in (SEG, SR) if one in files]
        if not objects:
            return {"archive": name, "error": "There are no DICOM objects to push."}
        try:
            return push(choose_server(self._servers, name), objects).as_dict()
        except (ArchiveError, InputError) as error:
            logger.warning("a push failed", extra={"exception": type(error).__name__})
            return {"archive": name, "error": str(error)}


def segment_options(spec: Mapping[str, Any]) -> SegmentOptions:
    """What the segmenter is asked for: where images are kept, also how the passes voted."""
    return SegmentOptions(**spec["options"], votes="images" in spec["reading"])


def _manifest(answer: Answer, taken: TakenIn, job: Job, bundle: InstalledBundle) -> RunManifest:
    return manifest_of(
        taken.taken.decoded,
        answer.segmentation,
        sources=_sources(taken, job.spec["sent"]),
        run=RunFacts(
            started=_started(job),
            options=segment_options(job.spec),
            prepare=taken.prepared.options,
            card_sha256=bundle.digest,
            threads=usable_cpus(),
            source="dicom" if taken.dicom else "nifti",
            prepared=answer.preparation,
        ),
        encoded=answer.label_map,
        statistics=answer.statistics,
        flags=answer.flags,
    )


def _sources(taken: TakenIn, sent: Mapping[str, Any]) -> dict[Contrast, list[FileRecord]]:
    """The files of each contrast: those of its series, or the one that was sent."""
    if taken.dicom is None:
        return {contrast: [FileRecord(**sent[contrast])] for contrast in CONTRASTS}
    return {
        contrast: [FileRecord(sha256=file.sha256, bytes=file.bytes) for file in files]
        for contrast, files in taken.taken.files.items()
    }


def _started(job: Job) -> datetime:
    return datetime.fromtimestamp((job.started or job.created) / 1000, UTC)
