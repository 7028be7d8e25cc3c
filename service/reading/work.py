"""What children do: read a study, look at one, or write the DICOM objects of a result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from model_core.errors import StudyError
from model_core.imaging.nifti import ReadLimits
from model_core.imaging.study import make_study
from model_core.imaging.volume import Volume
from model_core.pipeline.images import Images, images_of_dicom, images_of_nifti
from model_core.types import Contrast, Shape3
from service.reading.child import Report, Task

if TYPE_CHECKING:
    from model_core.dicom.derived import Algorithm
    from model_core.dicom.limits import DicomLimits
    from model_core.dicom.seg import SegKind
    from model_core.dicom.sr import RegionMeasurement

_Found = TypeVar("_Found")

__all__ = [
    "DicomFiles",
    "InspectTask",
    "ObjectsTask",
    "StudyTask",
    "inspect_study",
    "read_study",
    "write_objects",
]


@dataclass(frozen=True, kw_only=True)
class DicomFiles:
    """Files of DICOM in one zip archive.

    Attributes:
        archive: the file.
        workspace: a folder to unpack it in; whoever gave it removes it.
        series: contrast → uid, where the caller chose.
    """

    archive: Path
    workspace: Path
    series: Mapping[Contrast, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StudyTask(Task):
    """Read four images.

    Attributes:
        source: NIfTI files by contrast, or DICOM.
        reference: the contrast that gives one grid to all; None: each stays on its own.
    """

    source: Mapping[Contrast, Path] | DicomFiles
    reference: Contrast | None


@dataclass(frozen=True, kw_only=True)
class InspectTask(Task):
    """Look at images, any number of NIfTI files or DICOM."""

    source: Mapping[Contrast, Path] | DicomFiles


@dataclass(frozen=True, kw_only=True)
class ObjectsTask(Task):
    """Write the objects of a label map that was given as uint8, first axis fastest.

    Attributes:
        source: where its series is.
        uid: of that series.
        shape: of the label map.
        affine: its 16 numbers, index → RAS+ mm.
        algorithm: the model.
        measurements: of the label map.
        created: when the run was.
        kind: how the SEG stores its voxels.
    """

    source: DicomFiles
    uid: str
    shape: Shape3
    affine: tuple[float, ...]
    algorithm: Algorithm
    measurements: tuple[RegionMeasurement, ...]
    created: datetime
    kind: SegKind


def read_study(task: StudyTask, report: Report) -> None:
    """Read images one after the other, saying which, and bring them together if that is asked for.

    Side by side they would need threads, which the limits forbid, and several times the memory.

    Raises:
        InputError: as `images_of_nifti`, `images_of_dicom` and `make_study`.
    """
    source = task.source
    if not isinstance(source, DicomFiles):
        limits = ReadLimits(voxels=task.limits.voxels)
        _hand_over(task, images_of_nifti(source, limits=limits, begin=report.begin), report)
        return

    def read(files: tuple[Path, ...]) -> None:
        limits = _dicom_limits(task)
        images = images_of_dicom(files, override=source.series, limits=limits, begin=report.begin)
        _hand_over(task, images, report)

    _with_files(source, report, read)


def _hand_over(task: StudyTask, images: Images, report: Report) -> None:
    """Say what was read, while its files are there."""
    report.begin("study")
    if task.reference is None:
        report.apart(images)
    else:
        report.read(make_study(images.volumes, reference=task.reference), images)


def inspect_study(task: InspectTask, report: Report) -> None:
    """Say what was sent, as a JSON document.

    Raises:
        InputError: nothing of it can be read.
    """
    from model_core.recognition.inspection import inspect_dicom, inspect_nifti

    source = task.source
    if isinstance(source, DicomFiles):
        found = _with_files(
            source,
            report,
            lambda files: inspect_dicom(files, override=source.series, limits=_dicom_limits(task)),
        )
    else:
        report.begin("study")
        found = inspect_nifti(dict(source.items()), limits=ReadLimits(voxels=task.limits.voxels))
    report.written([json.dumps(found.to_dict()).encode()])


def write_objects(task: ObjectsTask, report: Report) -> None:
    """Write SEG and SR.

    Raises:
        InputError: as `model_core.pipeline.objects.dicom_objects`.
    """
    from model_core.dicom.series import list_series
    from model_core.pipeline.objects import dicom_objects

    labels = np.frombuffer(report.given(), np.uint8).reshape(task.shape, order="F")
    affine = np.array(task.affine, np.float64).reshape(4, 4)

    def write(files: tuple[Path, ...]) -> tuple[bytes, bytes]:
        report.begin("objects")
        found = {series.uid: series for series in list_series(files, limits=_dicom_limits(task))}
        if task.uid not in found:
            raise StudyError(
                "dicom",
                expected="the series that was segmented",
                got="an archive without it",
                way_out="Submit the study again.",
            )
        made = dicom_objects(
            Volume(labels, affine),
            found[task.uid],
            algorithm=task.algorithm,
            measurements=task.measurements,
            created=task.created,
            kind=task.kind,
        )
        return made.seg, made.sr

    report.written(_with_files(task.source, report, write))


def _with_files(
    source: DicomFiles, report: Report, work: Callable[[tuple[Path, ...]], _Found]
) -> _Found:
    from model_core.dicom.gather import gathered

    report.begin("dicom")
    with gathered(source.archive, workspace=source.workspace) as files:
        return work(files)


def _dicom_limits(task: Task) -> DicomLimits:
    from model_core.dicom.limits import DicomLimits

    return DicomLimits(voxels=task.limits.voxels)
