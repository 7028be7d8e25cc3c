"""How good a label map is: overlap, surface distance, and the lesion-wise scores of BraTS 2023."""

from __future__ import annotations

from model_core.metrics.evaluate import (
    CaseMetrics,
    RegionMetrics,
    Spread,
    Summary,
    evaluate_case,
    evaluate_masks,
    summarise,
    to_json,
)
from model_core.metrics.hausdorff import hd95, surface_hd95
from model_core.metrics.lesionwise import (
    PLAIN_RULES,
    LesionRules,
    LesionScore,
    LesionwiseScore,
    lesionwise,
)
from model_core.metrics.overlap import dice, region_dice, sensitivity, specificity

__all__ = [
    "PLAIN_RULES",
    "CaseMetrics",
    "LesionRules",
    "LesionScore",
    "LesionwiseScore",
    "RegionMetrics",
    "Spread",
    "Summary",
    "dice",
    "evaluate_case",
    "evaluate_masks",
    "hd95",
    "lesionwise",
    "region_dice",
    "sensitivity",
    "specificity",
    "summarise",
    "surface_hd95",
    "to_json",
]
