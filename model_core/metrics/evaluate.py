"""All scores of a case, a summary over cases, and both as one stable JSON schema.

A BraTS case has the three regions WT, TC, ET (`evaluate_case`), any other case whatever masks are
named (`evaluate_masks`); every region has the scores of `RegionMetrics`. Distances are millimetres,
volumes millilitres.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from model_core.errors import InputError
from model_core.labels import REGIONS, LabelArray, Mask, region_mask
from model_core.metrics.hausdorff import MISSING_MM, hd95
from model_core.metrics.lesionwise import PENALTY_MM, LesionRules, lesionwise
from model_core.metrics.overlap import dice, sensitivity, specificity
from model_core.types import Spacing

JSON_SCHEMA: Final = "segmamba-evaluation/1"
"""Changes when a field is renamed, moved or redefined; new fields do not change it."""


@dataclass(frozen=True, kw_only=True)
class RegionMetrics:
    """The scores of one region in one case."""

    dice: float
    hd95_mm: float
    sensitivity: float
    specificity: float
    lesion_dice: float
    lesion_hd95_mm: float
    lesions_found: int
    lesions_missed: int
    lesions_unscored: int
    false_positives: int
    truth_ml: float
    predicted_ml: float


SUMMARISED: Final = (
    "dice",
    "hd95_mm",
    "sensitivity",
    "specificity",
    "lesion_dice",
    "lesion_hd95_mm",
)
"""The fields of `RegionMetrics` that make sense as a mean over cases."""


@dataclass(frozen=True, kw_only=True)
class CaseMetrics:
    """The scores of one case, by region: WT, TC and ET in this order, or others."""

    regions: Mapping[str, RegionMetrics]

    @property
    def mean_dice(self) -> float:
        """The plain mean of the regions' Dice."""
        return statistics.fmean(region.dice for region in self.regions.values())


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One score over several cases; `sd` is the sample's (n - 1), absent for a single case."""

    mean: float
    sd: float | None
    median: float
    n: int


Summary = Mapping[str, Mapping[str, Spread]]
"""By region, then by the names in `SUMMARISED`."""


def evaluate_case(
    pred: LabelArray,
    truth: LabelArray,
    spacing_mm: Spacing,
    *,
    rules: LesionRules | None = None,
) -> CaseMetrics:
    """Score one predicted label map against its truth.

    Args:
        pred: internal labels (X, Y, Z).
        truth: internal labels on the same grid.
        spacing_mm: voxel size along the array axes.
        rules: lesion-wise settings; adult glioma of BraTS 2023 when left out.

    Raises:
        InputError: the shapes differ.
    """
    return evaluate_masks(
        {region: region_mask(pred, region) for region in REGIONS},
        {region: region_mask(truth, region) for region in REGIONS},
        spacing_mm,
        rules=rules,
    )


def evaluate_masks(
    pred: Mapping[str, Mask],
    truth: Mapping[str, Mask],
    spacing_mm: Spacing,
    *,
    rules: LesionRules | None = None,
) -> CaseMetrics:
    """Score named masks against those of the truth: any labels, any regions.

    Args:
        pred: boolean masks (X, Y, Z) by name.
        truth: the same names, on the same grid; their order is that of the scores.
        spacing_mm: voxel size along the array axes.
        rules: lesion-wise settings; adult glioma of BraTS 2023 when left out.

    Raises:
        InputError: the names or the shapes differ.
    """
    if pred.keys() != truth.keys():
        raise InputError(
            "pred",
            expected=f"the truth's regions: {', '.join(truth)}",
            got=", ".join(pred) or "none",
            way_out="Score the same regions of both maps.",
        )
    return CaseMetrics(
        regions={
            name: _score_region(pred[name], mask, spacing_mm, rules=rules)
            for name, mask in truth.items()
        }
    )


def summarise(cases: Iterable[CaseMetrics]) -> Summary:
    """Mean, standard deviation and median of every score over the cases.

    At least one case; all have the regions of the first.
    """
    cases = tuple(cases)
    assert cases, "a summary of no case has no meaning"
    return {
        region: {
            name: _spread([getattr(case.regions[region], name) for case in cases])
            for name in SUMMARISED
        }
        for region in cases[0].regions
    }


def to_json(
    cases: Mapping[str, CaseMetrics], *, rules: LesionRules | None = None
) -> dict[str, Any]:
    """Cases by name and their summary as plain JSON values, in the schema `JSON_SCHEMA`."""
    return {
        "schema": JSON_SCHEMA,
        "rules": {
            "hd95_one_empty_mm": MISSING_MM,
            "lesion_penalty_mm": PENALTY_MM,
            **asdict(rules or LesionRules()),
        },
        "cases": [
            {
                "case": name,
                "mean_dice": case.mean_dice,
                "regions": {region: asdict(scores) for region, scores in case.regions.items()},
            }
            for name, case in cases.items()
        ],
        "summary": {
            region: {name: asdict(spread) for name, spread in scores.items()}
            for region, scores in summarise(cases.values()).items()
        },
    }


def _score_region(
    pred: Mask,
    truth: Mask,
    spacing_mm: Spacing,
    *,
    rules: LesionRules | None,
) -> RegionMetrics:
    voxel_ml = math.prod(spacing_mm) / 1000
    lesions = lesionwise(pred, truth, spacing_mm, rules=rules)
    return RegionMetrics(
        dice=dice(pred, truth),
        hd95_mm=hd95(pred, truth, spacing_mm),
        sensitivity=sensitivity(pred, truth),
        specificity=specificity(pred, truth),
        lesion_dice=lesions.dice,
        lesion_hd95_mm=lesions.hd95_mm,
        lesions_found=lesions.found,
        lesions_missed=lesions.missed,
        lesions_unscored=lesions.unscored,
        false_positives=lesions.false_positives,
        truth_ml=int(np.count_nonzero(truth)) * voxel_ml,
        predicted_ml=int(np.count_nonzero(pred)) * voxel_ml,
    )


def _spread(values: list[float]) -> Spread:
    return Spread(
        mean=statistics.fmean(values),
        sd=statistics.stdev(values) if len(values) > 1 else None,
        median=statistics.median(values),
        n=len(values),
    )
