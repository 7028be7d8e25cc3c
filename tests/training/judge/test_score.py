"""Scores of any task: glioma exactly as `evaluate_case`, others by their own regions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from model_core.metrics import evaluate_case
from training.judge.score import dice_by_label, dice_by_region, score_case, scores_to_json
from training.task import BRATS, LabelArray, Region, Task

MM = (1.0, 2.0, 0.5)
ORGANS = Task(
    channels=("CT",),
    labels=("liver", "tumour"),
    regions=(
        Region(name="organ", labels=(1, 2), paints=1),
        Region(name="tumour", labels=(2,), paints=2),
    ),
)


def boxes(shift: int = 0) -> LabelArray:
    labels = np.zeros((24, 20, 20), np.uint8)
    labels[4 + shift : 14 + shift, 4:14, 4:14] = 1
    labels[6 + shift : 10 + shift, 6:10, 6:10] = 2
    return labels


def test_glioma_is_scored_as_the_challenges_do() -> None:
    truth, predicted = boxes(), boxes(shift=2)
    truth[6:9, 8, 8] = predicted[6:9, 8, 8] = 3
    truth[20, 18, 18] = 3  # a lesion too small to be scored
    score = score_case(predicted, truth, BRATS, MM)
    assert score.regions == evaluate_case(predicted, truth, MM).regions
    assert list(score.regions) == ["WT", "TC", "ET"]
    assert score.regions["ET"].lesions_unscored == 2


def test_another_task_is_scored_by_its_own_regions_and_every_lesion_counts() -> None:
    truth, predicted = boxes(), boxes(shift=1)
    truth[20, 18, 18] = 2
    score = score_case(predicted, truth, ORGANS, MM)
    assert score.regions["organ"].dice == pytest.approx(2 * 900 / (2 * 1000 + 1))
    assert score.regions["organ"].hd95_mm == pytest.approx(1.0)
    assert score.regions["tumour"].lesions_missed == 1
    assert score.regions["tumour"].lesions_unscored == 0
    assert score.regions["tumour"].sensitivity == pytest.approx(48 / 65)
    assert score.mean_dice == pytest.approx(
        (score.regions["organ"].dice + score.regions["tumour"].dice) / 2
    )


def test_labels_and_regions_are_told_apart() -> None:
    truth, predicted = boxes(), boxes()
    predicted[predicted == 2] = 1
    assert dice_by_region(predicted, truth, ORGANS) == {"organ": 1.0, "tumour": 0.0}
    assert dice_by_label(predicted, truth, ORGANS) == {
        "liver": pytest.approx(2 * 936 / (2 * 936 + 64)), "tumour": 0.0,
    }  # fmt: skip


def test_the_json_is_that_of_evaluate_with_the_labels() -> None:
    scores = {"a": score_case(boxes(), boxes(), ORGANS, MM)}
    report = json.loads(json.dumps(scores_to_json(scores, ORGANS), allow_nan=False))
    assert report["schema"] == "segmamba-evaluation/1"
    assert report["rules"]["min_lesion_mm3"] == 0
    assert report["cases"][0]["label_dice"] == {"liver": 1.0, "tumour": 1.0}
    assert list(report["summary"]) == ["organ", "tumour"]
    glioma = {"a": score_case(boxes(), boxes(), BRATS, MM)}
    assert scores_to_json(glioma, BRATS)["rules"]["min_lesion_mm3"] == 50


def test_a_picture_is_scored_in_its_plane() -> None:
    flat = replace(ORGANS, dims=2)
    truth, predicted = boxes()[None, 8], boxes()[None, 8]
    predicted = np.roll(predicted, 2, axis=1)
    score = score_case(predicted, truth, flat, (1.0, 1.0, 1.0))
    assert score.regions["organ"].dice == pytest.approx(0.8)
    assert score.regions["organ"].hd95_mm == 2
    assert score.regions["organ"].lesion_hd95_mm == 2
