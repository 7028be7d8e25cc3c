"""Writing what ``segmamba segment`` found: all files of a study in place, or none."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from model_core.cli.outputs import all_or_nothing

if TYPE_CHECKING:
    from model_core.cli.segment import Job, Studio
    from model_core.pipeline.answer import Answer
    from model_core.pipeline.images import Images
    from model_core.pipeline.objects import DicomObjects
    from model_core.preparation.prepared import PreparedStudy
    from model_core.provenance.manifest import RunManifest


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """One study that was segmented, and what it was segmented with."""

    job: Job
    studio: Studio
    images: Images
    ready: PreparedStudy
    found: Answer
    started: datetime


def write_results(run: Run) -> None:
    """Write the label map and whatever else was asked for.

    Raises:
        OSError: a file cannot be written; nothing has changed.
    """
    targets, found = run.job.targets, run.found
    with all_or_nothing() as stage:
        data = found.label_map
        if targets.label_map.name.lower().endswith(".nii"):
            data = gzip.decompress(data)
        stage(targets.label_map).write_bytes(data)
        if targets.report:
            report: Mapping[str, Any] = found.report()
            stage(targets.report).write_text(json.dumps(report, indent=2) + "\n")
        manifest = _manifest(run) if targets.run or targets.archive else None
        if targets.run and manifest:
            stage(targets.run).write_text(manifest.to_json())
        if targets.archive and manifest:
            stage(targets.archive).write_bytes(_archive(run, manifest))
        if targets.preview:
            from model_core.preview import render_preview

            result = found.segmentation
            model = f"{result.model} {result.model_version}"
            render_preview(run.ready.study, found.seen, stage(targets.preview), model=model)


def _archive(run: Run, manifest: RunManifest) -> bytes:
    from model_core.pipeline.files import archive_of, result_files

    card = run.studio.segmenter.card.model_dump(mode="json")
    files = result_files(run.found, manifest, _objects(run), prepared=run.ready, card=card)
    return archive_of(files)


def _objects(run: Run) -> DicomObjects | None:
    if not run.images.series:
        return None
    from model_core.imaging.volume import Volume
    from model_core.pipeline.objects import algorithm_of, dicom_objects, measurements_of

    result = run.found.segmentation
    return dicom_objects(
        Volume(result.labels, result.native.affine),
        run.images.series[run.ready.options.onto],
        algorithm=algorithm_of(result),
        measurements=measurements_of(run.found.statistics),
        created=run.started.astimezone(),
        kind=run.studio.way.seg_type,
    )


def _manifest(run: Run) -> RunManifest:
    from model_core.cpu import usable_cpus
    from model_core.provenance.digests import card_sha256
    from model_core.provenance.record import RunFacts, manifest_of

    series = run.images.series
    sources: Mapping[Any, Any] = run.job.sources
    if series:
        sources = {contrast: one.files for contrast, one in series.items()}
    return manifest_of(
        run.images.volumes,
        run.found.segmentation,
        sources=sources,
        run=RunFacts(
            started=run.started,
            options=run.studio.options,
            prepare=run.ready.options,
            card_sha256=card_sha256(run.studio.segmenter.card),
            threads=usable_cpus(),
            source="dicom" if series else "nifti",
            prepared=run.found.preparation,
        ),
        encoded=run.found.label_map,
        statistics=run.found.statistics,
        flags=run.found.flags,
    )
