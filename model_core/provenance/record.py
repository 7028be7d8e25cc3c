"""Filling the manifest of a run that has just ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from model_core.imaging.volume import Volume
from model_core.provenance.digests import decoded_sha256, sha256_of, voxels_sha256
from model_core.provenance.environment import code_version, machine, package_versions
from model_core.provenance.manifest import (
    EngineRecord,
    FileRecord,
    InputRecord,
    ModelRecord,
    OptionsRecord,
    PreparationRecord,
    ResultRecord,
    RunManifest,
)
from model_core.types import Contrast

if TYPE_CHECKING:
    from model_core.findings import Flag, Statistics
    from model_core.inference.segmentation import Segmentation, SegmentOptions
    from model_core.preparation.options import PrepareOptions

Source = Path | bytes | FileRecord
"""A file: where it is, what is in it, or what is known of it."""
Sources = Mapping[Contrast, Source | Sequence[Source]]
"""The file of each contrast, or the files of its series."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run's caller knows and its result does not say.

    Attributes:
        started: when it began, with its time zone.
        options: as they were handed to the segmenter.
        card_sha256: of the card of the model that ran (`model_core.provenance.digests`).
        threads: of the CPU.
        memory_limit_mb: the limit that was asked for, if any.
        source: what the files were.
        prepare: what was asked of the preparation.
        prepared: the account of it, as JSON values; None: nothing had to be done.
        seconds: stages around the segmenter's own, e.g. ``read``.
    """

    started: datetime
    options: SegmentOptions
    prepare: PrepareOptions
    card_sha256: str
    threads: int
    memory_limit_mb: int | None = None
    source: Literal["nifti", "dicom"] = "nifti"
    prepared: Mapping[str, Any] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


def manifest_of(
    images: Mapping[Contrast, Volume | str],
    result: Segmentation,
    *,
    sources: Sources,
    run: RunFacts,
    encoded: bytes | None = None,
    statistics: Statistics | None = None,
    flags: Sequence[Flag] = (),
) -> RunManifest:
    """The account of a run.

    Args:
        images: each as it was read, or its `decoded_sha256`.
        result: the answer as it is handed out, on the grid that was asked for.
        sources: the files that were read, by path or by content.
        run: the rest.
        encoded: the label map's ``.nii.gz`` where it is at hand; else it is encoded again.
        statistics: of the label map.
        flags: of the result.

    Raises:
        OSError: a file cannot be read any more.
    """
    return RunManifest(
        started=run.started.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        stage_seconds={**run.seconds, **result.stage_seconds},
        source=run.source,
        inputs=_inputs(images, sources),
        preparation=_preparation(run),
        model=ModelRecord(
            name=result.model,
            version=result.model_version,
            weights_sha256=result.weights_sha256,
            card_sha256=run.card_sha256,
        ),
        code=code_version(),
        packages=package_versions(),
        options=OptionsRecord.model_validate(vars(run.options)),
        engine=_engine(result, run),
        result=_result(result, encoded if encoded is not None else result.encode()),
        statistics=statistics.to_dict() if statistics else None,
        flags=tuple(flag.to_dict() for flag in flags),
        warnings=result.warnings,
    )


def _inputs(
    images: Mapping[Contrast, Volume | str], sources: Sources
) -> dict[Contrast, InputRecord]:
    return {
        contrast: InputRecord(
            files=tuple(sorted(map(_file, _listed(given)), key=lambda file: file.sha256)),
            decoded_sha256=_decoded(images[contrast]),
        )
        for contrast, given in sources.items()
    }


def _decoded(image: Volume | str) -> str:
    return image if isinstance(image, str) else decoded_sha256(image)


def _listed(given: Source | Sequence[Source]) -> Sequence[Source]:
    return [given] if isinstance(given, Path | bytes | FileRecord) else given


def _file(source: Source) -> FileRecord:
    if isinstance(source, FileRecord):
        return source
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    return FileRecord(sha256=sha256_of(source), bytes=size)


def _preparation(run: RunFacts) -> PreparationRecord:
    account = dict(run.prepared) if run.prepared is not None else None
    return PreparationRecord.model_validate({**vars(run.prepare), "account": account})


def _engine(result: Segmentation, run: RunFacts) -> EngineRecord:
    return EngineRecord(
        device=result.device,
        backend=result.backend,
        precision=result.precision,
        threads=run.threads,
        memory_limit_mb=run.memory_limit_mb,
        machine=machine(),
        tta=dict(result.tta),
        window_choice=result.window_choice,
        window=result.window,
        memory_steps=result.memory_steps,
    )


def _result(result: Segmentation, encoded: bytes) -> ResultRecord:
    return ResultRecord(
        file=_file(encoded),
        voxels_sha256=voxels_sha256(result.labels),
        label_scheme=result.label_scheme,
        volumes_ml=dict(result.volumes_ml),
    )
