"""The scores of one predicted case, whatever the task: regions in full, labels by their Dice.

Glioma is scored exactly as ``segmamba evaluate`` does (`model_core.metrics.evaluate_case`, lesions
as in BraTS 2023). Any other task has the same scores for its own regions, with lesion-wise rules
that leave nothing out (`model_core.metrics.PLAIN_RULES`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_core.metrics import (
    PLAIN_RULES,
    CaseMetrics,
    LesionRules,
    dice,
    evaluate_masks,
    to_json,
)
from model_core.types import Spacing
from training.task import BRATS, LabelArray, Task


@dataclass(frozen=True, kw_only=True)
class CaseScore(CaseMetrics):
    """`CaseMetrics` of the task's regions, and the Dice of every label."""

    label_dice: Mapping[str, float]


def lesion_rules(task: Task) -> LesionRules:
    """How lesions of this task are scored."""
    glioma = task.labels == BRATS.labels and task.regions == BRATS.regions
    return LesionRules() if glioma else PLAIN_RULES


def score_case(labels: LabelArray, truth: LabelArray, task: Task, spacing_mm: Spacing) -> CaseScore:
    """Score a predicted label map.

    Args:
        labels: internal labels (X, Y, Z).
        truth: internal labels on the same grid.
        task: what they mean.
        spacing_mm: voxel size along the array axes.

    Raises:
        InputError: the shapes differ.
    """
    regions = evaluate_masks(
        {region.name: task.mask(labels, region.name) for region in task.regions},
        {region.name: task.mask(truth, region.name) for region in task.regions},
        spacing_mm,
        rules=lesion_rules(task),
    ).regions
    return CaseScore(regions=regions, label_dice=dice_by_label(labels, truth, task))


def dice_by_region(labels: LabelArray, truth: LabelArray, task: Task) -> dict[str, float]:
    """The Dice of every region: the cheap score, for validations on the way."""
    names = [region.name for region in task.regions]
    return {name: dice(task.mask(labels, name), task.mask(truth, name)) for name in names}


def dice_by_label(labels: LabelArray, truth: LabelArray, task: Task) -> dict[str, float]:
    """The Dice of every label."""
    return {
        name: dice(labels == value, truth == value)
        for value, name in enumerate(task.labels, start=1)
    }


def scores_to_json(scores: Mapping[str, CaseScore], task: Task) -> dict[str, Any]:
    """Cases and summary as ``segmamba evaluate --json`` writes them, with ``label_dice``."""
    report = to_json(scores, rules=lesion_rules(task))
    for case in report["cases"]:
        case["label_dice"] = dict(scores[case["case"]].label_dice)
    return report
