"""How good a label map is: overlap, surface distance, and the lesion-wise scores of BraTS 2023."""

from __future__ import annotations

from model_core.metrics.evaluate import (
    CaseMetrics,
    RegionMetrics,
    Spread,
    Summary,
    evaluate_case,
    summarise,
    to_json,
)
from model_core.metrics.hausdorff import hd95, surface_hd95
from model_core.metrics.lesionwise import LesionRules, LesionScore, LesionwiseScore, lesionwise
from model_core.metrics.overlap import dice, region_dice, sensitivity, specificity

__all__ = [
    "CaseMetrics",
    "LesionRules",
    "LesionScore",
    "LesionwiseScore",
    "RegionMetrics",
    "Spread",
    "Summary",
    "dice",
    "evaluate_case",
    "hd95",
    "lesionwise",
    "region_dice",
    "sensitivity",
    "specificity",
    "summarise",
    "surface_hd95",
    "to_json",
]
