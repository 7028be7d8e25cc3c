"""All scores of a case, a summary over cases, and both as one stable JSON schema.

Every case has the three BraTS regions WT, TC, ET; every region the scores of `RegionMetrics`.
Distances are millimetres, volumes millilitres.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from model_core.labels import REGIONS, LabelArray, Mask, region_mask, volumes_ml
from model_core.metrics.hausdorff import MISSING_MM, hd95
from model_core.metrics.lesionwise import PENALTY_MM, LesionRules, lesionwise
from model_core.metrics.overlap import dice, sensitivity, specificity
from model_core.types import Region, Spacing

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
    """The scores of one case, by region."""

    regions: Mapping[Region, RegionMetrics]

    @property
    def mean_dice(self) -> float:
        """The plain mean of the Dice of WT, TC and ET."""
        return statistics.fmean(self.regions[region].dice for region in REGIONS)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One score over several cases; `sd` is the sample's (n - 1), absent for a single case."""

    mean: float
    sd: float | None
    median: float
    n: int


Summary = Mapping[Region, Mapping[str, Spread]]
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
    voxel_ml = math.prod(spacing_mm) / 1000
    truth_ml, predicted_ml = volumes_ml(truth, voxel_ml), volumes_ml(pred, voxel_ml)
    regions: dict[Region, RegionMetrics] = {
        region: _score_region(
            region_mask(pred, region),
            region_mask(truth, region),
            spacing_mm,
            rules=rules,
            volumes={"truth_ml": truth_ml[region], "predicted_ml": predicted_ml[region]},
        )
        for region in REGIONS
    }
    return CaseMetrics(regions=regions)


def summarise(cases: Iterable[CaseMetrics]) -> Summary:
    """Mean, standard deviation and median of every score over the cases; at least one case."""
    cases = tuple(cases)
    assert cases, "a summary of no case has no meaning"
    return {
        region: {
            name: _spread([getattr(case.regions[region], name) for case in cases])
            for name in SUMMARISED
        }
        for region in REGIONS
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
                "regions": {region: asdict(case.regions[region]) for region in REGIONS},
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
    volumes: Mapping[str, float],
) -> RegionMetrics:
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
        truth_ml=volumes["truth_ml"],
        predicted_ml=volumes["predicted_ml"],
    )


def _spread(values: list[float]) -> Spread:
    return Spread(
        mean=statistics.fmean(values),
        sd=statistics.stdev(values) if len(values) > 1 else None,
        median=statistics.median(values),
        n=len(values),
    )
