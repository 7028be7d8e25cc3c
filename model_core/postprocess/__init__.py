"""Corrections of a label map that a model card may ask for, each named, measured and reported."""

from __future__ import annotations

from model_core.postprocess.pipeline import (
    STEPS,
    Step,
    StepReport,
    apply_step,
    apply_steps,
    parse_steps,
)
from model_core.postprocess.regions import GLIOMA, RegionRule, RegionRules
from model_core.postprocess.steps import (
    fill_holes,
    keep_largest,
    keep_largest_of,
    relabel_small_et,
    remove_small_components,
)

__all__ = [
    "GLIOMA",
    "STEPS",
    "RegionRule",
    "RegionRules",
    "Step",
    "StepReport",
    "apply_step",
    "apply_steps",
    "fill_holes",
    "keep_largest",
    "keep_largest_of",
    "parse_steps",
    "relabel_small_et",
    "remove_small_components",
]
