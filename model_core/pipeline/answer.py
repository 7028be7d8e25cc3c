"""A prepared study segmented, carried onto the wanted grid, measured and looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from model_core.findings import Flag, Statistics, measure
from model_core.findings.flags import by_severity
from model_core.findings.quality import check
from model_core.findings.round_trip import check_round_trip
from model_core.findings.way_back import check_way_back
from model_core.imaging.study import Study
from model_core.labels import LabelArray, volumes_ml
from model_core.pipeline.image_files import carried
from model_core.preparation.prepared import PreparedStudy
from model_core.types import CancelCheck, Progress

if TYPE_CHECKING:
    from model_core.inference.segmentation import Segmentation, SegmentOptions


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """What a caller gets.

    Attributes:
        segmentation: the label map, on the grid of the contrast that was named.
        seen: the labels on the grid of the prepared study, as the network saw it.
        label_map: the label map as a ``.nii.gz`` file.
        statistics: of the label map.
        flags: what a person should know before trusting it, the gravest first.
        preparation: what was done to the images before, as plain JSON values.
    """

    segmentation: Segmentation
    seen: LabelArray
    label_map: bytes
    statistics: Statistics
    flags: tuple[Flag, ...]
    preparation: dict[str, Any] | None

    def report(self) -> dict[str, Any]:
        """The whole account as plain JSON values."""
        return {
            **self.segmentation.report(),
            "statistics": self.statistics.to_dict(),
            "quality": [flag.to_dict() for flag in self.flags],
            "preparation": self.preparation,
        }


class Segments(Protocol):
    """What segments a study, as `model_core.inference.segmenter.Segmenter` does."""

    def segment(
        self,
        study: Study,
        options: SegmentOptions = ...,
        *,
        progress: Progress | None = None,
        cancelled: CancelCheck | None = None,
    ) -> Segmentation:
        """Segment one study."""


def answer(
    segmenter: Segments,
    prepared: PreparedStudy,
    options: SegmentOptions,
    *,
    warnings: Sequence[str] = (),
    progress: Progress | None = None,
    cancelled: CancelCheck | None = None,
) -> Answer:
    """Segment a prepared study.

    Args:
        segmenter: does it.
        prepared: from `model_core.preparation.prepare_study`.
        options: how.
        warnings: about the images, from before.
        progress: told of every window.
        cancelled: asked between windows.

    Raises:
        SegMambaError: as `Segmenter.segment`.
    """
    from model_core.inference.stages import Stages  # imports torch, as the segmenter has

    found = segmenter.segment(prepared.study, options, progress=progress, cancelled=cancelled)
    stages = Stages(progress, cancelled)
    with stages.told("measure"):
        whole = _measured(prepared, found, warnings)
    seconds = {**found.stage_seconds, **stages.seconds}
    return replace(whole, segmentation=replace(whole.segmentation, stage_seconds=seconds))


def _measured(prepared: PreparedStudy, found: Segmentation, warnings: Sequence[str]) -> Answer:
    """The label map where it is wanted and as a file, its figures, and what is odd about it."""
    flags = check(prepared.study, found.labels, agreement=found.agreement)
    labels, native = prepared.bring_back(found.labels)
    moved = native is not prepared.study.native
    if moved:
        flags += check_way_back(found.labels, prepared.study.native.grid, labels, native.grid)
    placed = replace(
        found,
        labels=labels,
        native=native,
        volumes_ml=volumes_ml(labels, native.grid.voxel_ml) if moved else found.volumes_ml,
        disagreement=_carried(prepared, found.disagreement),
        warnings=(*warnings, *found.warnings),
    )
    label_map = placed.encode()
    return Answer(
        segmentation=placed,
        seen=found.labels,
        label_map=label_map,
        statistics=measure(labels, native.grid),
        flags=by_severity((*check_round_trip(label_map, labels, native.grid), *flags)),
        preparation=prepared.report() if prepared.steps else None,
    )


def _carried(prepared: PreparedStudy, disagreement: LabelArray | None) -> LabelArray | None:
    if disagreement is None:
        return None
    shares = carried(prepared, disagreement)
    return shares if shares.dtype == np.uint8 else np.rint(shares).astype(np.uint8)
