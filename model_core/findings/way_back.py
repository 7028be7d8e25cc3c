"""Whether a tumour that was seen is still there on the grid of the label map that is handed out.

The way back is to a contrast as it was scanned: it may have thick slices, or show a slab of the
head only. What is lost there is in no picture and no figure of the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from model_core.findings.flags import Flag
from model_core.findings.plausibility import at_border, nothing_found
from model_core.imaging.grid import Grid
from model_core.labels import REGIONS, LabelArray, volumes_ml
from model_core.types import Region

MOST_LOST: Final[Mapping[Region, float]] = MappingProxyType({"WT": 0.15, "TC": 0.3, "ET": 0.5})
"""Of a region's volume, the share that thick slices alone may take (`docs/concepts/quality.md`)."""
LEAST_LOST_ML: Final = 0.01
"""Less than this is not worth a word: ten voxels of 1 mm."""
_GONE: Final = (
    "What was found, {seen:.2f} mL, is not in the label map, whose image shows too little."
)
_LOST: Final = (
    "The label map holds {left:.2f} mL of the {seen:.2f} mL of {region} that were found: "
)
_WHY: Final = "its image ends before it, or has slices too thick for it."


def check_way_back(
    seen: LabelArray, source: Grid, labels: LabelArray, target: Grid
) -> tuple[Flag, ...]:
    """Hold a label map against what it was carried over from.

    What `model_core.findings.plausibility` says of ``seen`` already is not said again.

    Args:
        seen: internal labels (X, Y, Z) on ``source``.
        source: the grid of the prepared study.
        labels: the same (X, Y, Z) on ``target``.
        target: the grid that was asked for.
    """
    if not seen.any():
        return ()
    before, after = volumes_ml(seen, source.voxel_ml), volumes_ml(labels, target.voxel_ml)
    lost = (_lost(region, before[region], after[region]) for region in REGIONS)
    if not labels.any():
        empty: tuple[Flag, ...] = (nothing_found(_GONE.format(seen=before["WT"])),)
    else:
        empty = () if at_border(seen) else at_border(labels)
    return (*empty, *(flag for flag in lost if flag))


def _lost(region: Region, seen: float, left: float) -> Flag | None:
    lost = seen - left
    if lost < LEAST_LOST_ML or lost <= MOST_LOST[region] * seen:
        return None
    return Flag(
        code="lost-on-the-way-back",
        severity="review",
        reason=_LOST.format(left=left, seen=seen, region=region) + _WHY,
        value=lost / seen,
        limit=MOST_LOST[region],
        subject=region,
    )
