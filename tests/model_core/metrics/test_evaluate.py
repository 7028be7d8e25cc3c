"""A case's scores, the summary over cases, and the JSON that others will parse."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_core.errors import InputError
from model_core.metrics import (
    CaseMetrics,
    LesionRules,
    RegionMetrics,
    evaluate_case,
    evaluate_masks,
    summarise,
    to_json,
)

MM = (1.0, 1.0, 1.0)


def nested(shift: int = 0) -> NDArray[np.uint8]:
    """ED shell of 8³, NCR of 6³ inside, ET core of 4³."""
    labels = np.zeros((20, 20, 20), dtype=np.uint8)
    for label, margin in ((2, 0), (1, 1), (3, 2)):
        x = slice(4 + margin + shift, 12 - margin + shift)
        labels[x, 4 + margin : 12 - margin, 4 + margin : 12 - margin] = label
    return labels


def half_right() -> CaseMetrics:
    """ET and TC missed, WT perfect."""
    truth = nested()
    return evaluate_case(np.where(truth > 0, 2, 0).astype(np.uint8), truth, MM)


def test_every_region_is_scored_on_its_own_mask() -> None:
    case = evaluate_case(nested(shift=1), nested(), MM)
    # a cube of edge n shifted by one voxel overlaps by (n - 1) / n
    expected = {"WT": 7 / 8, "TC": 5 / 6, "ET": 3 / 4}
    for region, score in expected.items():
        metrics = case.regions[region]
        assert metrics.dice == metrics.sensitivity == metrics.lesion_dice == pytest.approx(score)
        assert metrics.hd95_mm == metrics.lesion_hd95_mm == pytest.approx(1.0)
    assert case.mean_dice == pytest.approx((7 / 8 + 5 / 6 + 3 / 4) / 3)


def test_specificity_counts_the_whole_volume() -> None:
    case = evaluate_case(nested(shift=1), nested(), MM)
    assert case.regions["WT"].specificity == pytest.approx(1 - 64 / (8000 - 512))


def test_volumes_are_millilitres_and_distances_millimetres() -> None:
    case = evaluate_case(nested(shift=1), nested(), (2.0, 1.0, 0.5))
    assert case.regions["ET"].truth_ml == case.regions["ET"].predicted_ml == pytest.approx(0.064)
    assert case.regions["WT"].hd95_mm == pytest.approx(2.0)


def test_a_region_absent_from_the_map_costs_the_penalties() -> None:
    et = half_right().regions["ET"]
    assert (et.dice, et.hd95_mm, et.lesion_dice, et.lesion_hd95_mm) == (0.0, 373.13, 0.0, 374.0)
    assert (et.lesions_found, et.lesions_missed, et.predicted_ml) == (0, 1, 0.0)


def test_lesion_rules_reach_the_regions() -> None:
    case = evaluate_case(nested(), nested(), MM, rules=LesionRules(min_lesion_mm3=64))
    assert case.regions["ET"].lesions_unscored == 1
    assert case.regions["TC"].lesions_unscored == 0


def test_a_case_travels_between_processes_and_into_a_plain_dict() -> None:
    case = half_right()
    assert pickle.loads(pickle.dumps(case)) == case
    assert asdict(case)["regions"]["WT"]["dice"] == 1.0


def test_maps_of_two_grids_are_refused() -> None:
    with pytest.raises(InputError, match="shape of the truth"):
        evaluate_case(nested()[:10], nested(), MM)


def test_the_summary_is_mean_sample_deviation_and_median() -> None:
    perfect = evaluate_case(nested(), nested(), MM)
    spread = summarise([perfect, half_right(), perfect, perfect])["ET"]["dice"]
    assert spread.mean == pytest.approx(0.75)
    assert spread.sd == pytest.approx(0.5)  # of 1, 0, 1, 1 with n - 1
    assert (spread.median, spread.n) == (1.0, 4)


def test_a_single_case_has_no_deviation() -> None:
    spread = summarise([half_right()])["WT"]["dice"]
    assert (spread.mean, spread.sd, spread.median, spread.n) == (1.0, None, 1.0, 1)


def test_the_json_schema_is_stable() -> None:
    report = to_json({"case-a": half_right()})
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["schema"] == "segmamba-evaluation/1"
    assert report["rules"] == {
        "hd95_one_empty_mm": 373.13,
        "lesion_penalty_mm": 374.0,
        "dilation": 3,
        "min_lesion_mm3": 50.0,
    }
    (case,) = report["cases"]
    assert (case["case"], case["mean_dice"]) == ("case-a", pytest.approx(1 / 3))
    assert list(case["regions"]) == list(report["summary"]) == ["WT", "TC", "ET"]
    assert set(case["regions"]["ET"]) == {
        "dice", "hd95_mm", "sensitivity", "specificity", "lesion_dice", "lesion_hd95_mm",
        "lesions_found", "lesions_missed", "lesions_unscored", "false_positives",
        "truth_ml", "predicted_ml",
    }  # fmt: skip
    assert set(report["summary"]["ET"]) == {
        "dice", "hd95_mm", "sensitivity", "specificity", "lesion_dice", "lesion_hd95_mm",
    }  # fmt: skip
    assert report["summary"]["WT"]["dice"] == {"mean": 1.0, "sd": None, "median": 1.0, "n": 1}


def test_any_named_masks_are_scored_as_the_regions_are() -> None:
    truth, pred = nested(), nested(shift=1)
    case = evaluate_masks(
        {"any": pred > 0, "b": pred == 3}, {"any": truth > 0, "b": truth == 3}, MM
    )
    brats = evaluate_case(pred, truth, MM)
    assert case.regions == {"any": brats.regions["WT"], "b": brats.regions["ET"]}
    assert case.mean_dice == pytest.approx((7 / 8 + 3 / 4) / 2)
    assert list(summarise([case, case])) == ["any", "b"]
    assert list(to_json({"x": case})["summary"]) == ["any", "b"]


def test_other_regions_than_the_truths_are_refused() -> None:
    with pytest.raises(InputError, match="the truth's regions: a, b"):
        evaluate_masks({"a": nested() > 0}, {"a": nested() > 0, "b": nested() > 1}, MM)


def test_every_score_is_documented() -> None:
    page = Path(__file__).parents[3] / "docs" / "how-to" / "evaluate.md"
    documented = set(re.findall(r"`(\w+)`", page.read_text("utf-8")))
    assert {field.name for field in fields(RegionMetrics)} <= documented
