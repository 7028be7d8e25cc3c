"""Lesion-wise scores of scenes that can be scored by hand (1 mm voxels unless said)."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from model_core.errors import InputError, OptionError
from model_core.metrics import LesionRules, dice, lesionwise, surface_hd95
from model_core.metrics.lesionwise import PENALTY_MM

MM = (1.0, 1.0, 1.0)
ALL_SIZES = LesionRules(min_lesion_mm3=0)
Box = tuple[slice, slice, slice]

FIRST: Box = np.s_[2:7, 2:7, 2:7]  # 125 mm³
FAR: Box = np.s_[22:27, 20:25, 20:25]  # 125 mm³, out of reach of any dilation of FIRST


def scene(*boxes: Box) -> NDArray[np.bool_]:
    mask = np.zeros((32, 28, 28), dtype=bool)
    for box in boxes:
        mask[box] = True
    return mask


def test_a_perfect_map_scores_one_and_zero() -> None:
    score = lesionwise(scene(FIRST, FAR), scene(FIRST, FAR), MM)
    assert (score.dice, score.hd95_mm) == (1.0, 0.0)
    assert (score.found, score.missed, score.unscored, score.false_positives) == (2, 0, 0, 0)


def test_a_missed_lesion_halves_the_score_whatever_its_size() -> None:
    score = lesionwise(scene(FIRST), scene(FIRST, FAR), MM)
    assert score.dice == pytest.approx((1 + 0) / 2)
    assert score.hd95_mm == pytest.approx((0 + 374) / 2)
    assert (score.found, score.missed) == (1, 1)


def test_one_false_positive_voxel_costs_as_much_as_a_lesion() -> None:
    score = lesionwise(scene(FIRST, np.s_[30:31, 14:15, 14:15]), scene(FIRST), MM)
    assert score.dice == pytest.approx(1 / 2)
    assert score.hd95_mm == pytest.approx(PENALTY_MM / 2)
    assert score.false_positives == 1


def test_found_missed_and_false_positive_together() -> None:
    shifted = np.s_[3:8, 2:7, 2:7]  # 100 of 125 voxels overlap; one whole face is 1 mm off
    score = lesionwise(scene(shifted, np.s_[30:31, 2:3, 2:3]), scene(FIRST, FAR), MM)
    assert score.dice == pytest.approx((0.8 + 0 + 0) / 3)
    assert score.hd95_mm == pytest.approx((1 + 374 + 374) / 3)


def test_nothing_anywhere_is_perfect() -> None:
    score = lesionwise(scene(), scene(), MM)
    assert (score.dice, score.hd95_mm, score.lesions) == (1.0, 0.0, ())


def test_a_false_positive_in_a_healthy_case_scores_worst() -> None:
    score = lesionwise(scene(FIRST, FAR), scene(), MM)
    assert (score.dice, score.hd95_mm, score.false_positives) == (0.0, 374.0, 2)


def test_an_empty_prediction_scores_worst() -> None:
    score = lesionwise(scene(), scene(FIRST, FAR), MM)
    assert (score.dice, score.hd95_mm, score.missed) == (0.0, 374.0, 2)


class TestThreshold:
    FIFTY: Box = np.s_[22:27, 20:25, 20:22]
    FIFTY_FOUR: Box = np.s_[22:25, 20:23, 20:26]

    def test_a_missed_lesion_of_fifty_cubic_millimetres_is_not_scored(self) -> None:
        score = lesionwise(scene(FIRST), scene(FIRST, self.FIFTY), MM)
        assert (score.dice, score.hd95_mm, score.unscored, score.missed) == (1.0, 0.0, 1, 0)

    def test_a_larger_one_is(self) -> None:
        score = lesionwise(scene(FIRST), scene(FIRST, self.FIFTY_FOUR), MM)
        assert (score.dice, score.unscored, score.missed) == (0.5, 0, 1)

    def test_what_touches_an_unscored_lesion_is_no_false_positive(self) -> None:
        score = lesionwise(scene(FIRST, self.FIFTY), scene(FIRST, self.FIFTY), MM)
        assert (score.dice, score.false_positives, len(score.lesions)) == (1.0, 0, 1)

    def test_only_unscored_lesions_count_as_nothing_to_find(self) -> None:
        score = lesionwise(scene(), scene(self.FIFTY), MM)
        assert (score.dice, score.hd95_mm) == (1.0, 0.0)

    def test_the_threshold_is_a_volume_not_a_count(self) -> None:
        score = lesionwise(scene(FIRST), scene(FIRST, self.FIFTY), (1.0, 1.0, 1.1))
        assert score.missed == 1
        assert score.lesions[1].truth_mm3 == pytest.approx(55)


class TestMerging:
    """Three steps of dilation from both sides close a gap of six voxels, not one of seven."""

    NEAR: Box = np.s_[13:18, 2:7, 2:7]  # voxels 7 to 12 lie between
    APART: Box = np.s_[14:19, 2:7, 2:7]

    def test_lesions_whose_dilations_meet_are_one(self) -> None:
        score = lesionwise(scene(FIRST), scene(FIRST, self.NEAR), MM)
        assert len(score.lesions) == 1
        assert score.dice == pytest.approx(2 * 125 / (125 + 250))

    def test_lesions_whose_dilations_do_not_meet_are_two(self) -> None:
        score = lesionwise(scene(FIRST), scene(FIRST, self.APART), MM)
        assert [lesion.dice for lesion in score.lesions] == [1.0, 0.0]

    def test_small_parts_of_a_merged_lesion_count_towards_its_size(self) -> None:
        halves = scene(np.s_[2:5, 2:7, 2:4], np.s_[9:12, 2:7, 2:4])  # 30 + 30 mm³
        assert len(lesionwise(scene(), halves, MM).lesions) == 1

    def test_fewer_steps_merge_less(self) -> None:
        rules = LesionRules(dilation=1, min_lesion_mm3=2)
        score = lesionwise(scene(FIRST), scene(FIRST, self.NEAR), MM, rules=rules)
        assert len(score.lesions) == 2


class TestMatching:
    def test_a_component_within_the_dilation_is_a_match_without_overlap(self) -> None:
        score = lesionwise(scene(np.s_[9:10, 4:5, 4:5]), scene(FIRST), MM)  # third voxel outside
        assert (score.found, score.false_positives, score.dice) == (1, 0, 0.0)
        assert score.hd95_mm < 374

    def test_one_voxel_further_is_a_miss_and_a_false_positive(self) -> None:
        score = lesionwise(scene(np.s_[10:11, 4:5, 4:5]), scene(FIRST), MM)
        assert (score.found, score.missed, score.false_positives) == (0, 1, 1)
        assert score.hd95_mm == 374

    def test_all_touching_components_together_are_the_prediction(self) -> None:
        halves = scene(np.s_[2:4, 2:7, 2:7], np.s_[5:7, 2:7, 2:7])
        score = lesionwise(halves, scene(FIRST), MM)
        assert score.dice == pytest.approx(2 * 100 / (100 + 125))
        assert score.false_positives == 0

    def test_one_component_may_serve_two_lesions(self) -> None:
        bar = scene(np.s_[2:27, 2:7, 2:7])  # 625 voxels over both
        truth = scene(FIRST, np.s_[22:27, 2:7, 2:7])
        score = lesionwise(bar, truth, MM)
        assert [lesion.dice for lesion in score.lesions] == pytest.approx([2 * 125 / 750] * 2)

    def test_dilation_steps_go_over_edges_not_over_corners(self) -> None:
        truth = scene(np.s_[10:11, 10:11, 10:11])
        rules = LesionRules(dilation=1, min_lesion_mm3=0)
        over_an_edge = lesionwise(scene(np.s_[11:12, 11:12, 10:11]), truth, MM, rules=rules)
        over_a_corner = lesionwise(scene(np.s_[11:12, 11:12, 11:12]), truth, MM, rules=rules)
        assert (over_an_edge.found, over_a_corner.found) == (1, 0)

    def test_predicted_voxels_that_share_a_corner_are_one_component(self) -> None:
        diagonal = scene(np.s_[28:29, 2:3, 2:3], np.s_[29:30, 3:4, 3:4])
        assert lesionwise(diagonal, scene(FIRST), MM).false_positives == 1


def test_a_lesion_at_the_edge_of_the_volume_is_scored_like_any_other() -> None:
    corner = np.s_[27:32, 23:28, 0:5]
    score = lesionwise(scene(corner), scene(corner, FIRST), MM)
    assert [lesion.dice for lesion in score.lesions] == pytest.approx([0.0, 1.0])


def test_one_lesion_scores_what_the_plain_metric_scores() -> None:
    pred, truth = scene(np.s_[3:8, 3:8, 2:7]), scene(FIRST)
    assert lesionwise(pred, truth, MM).dice == pytest.approx(dice(pred, truth))


def test_the_scored_lesions_add_up_to_the_truth() -> None:
    rng = np.random.default_rng(5)
    truth = rng.random((20, 20, 20)) > 0.998
    score = lesionwise(truth, truth, (1.0, 2.0, 0.5), rules=ALL_SIZES)
    assert sum(lesion.truth_mm3 for lesion in score.lesions) == pytest.approx(truth.sum())
    assert (score.dice, score.false_positives) == (1.0, 0)


def test_masks_of_two_grids_are_refused() -> None:
    with pytest.raises(InputError, match="shape of the truth"):
        lesionwise(scene()[:5], scene(), MM)


@pytest.mark.parametrize("seed", range(6))
def test_random_scenes_score_what_the_definition_says(seed: int) -> None:
    """The four rules once more, slowly: whole volume, SciPy only, one mask at a time."""
    spacing = (1.0, 0.8, 1.5)
    smooth = ndimage.gaussian_filter(
        np.random.default_rng(seed).random((2, 26, 24, 22)), (0, 1, 1, 1)
    )
    pred, truth = smooth > np.quantile(smooth, 0.975)
    rules = LesionRules(dilation=1, min_lesion_mm3=6)
    expected_dice, expected_hd95 = slow_lesionwise(pred, truth, spacing, rules)
    score = lesionwise(pred, truth, spacing, rules=rules)
    assert score.unscored + len(score.lesions) > 3, "the scene should test something"
    assert score.dice == pytest.approx(expected_dice)
    assert score.hd95_mm == pytest.approx(expected_hd95)


def slow_lesionwise(
    pred: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    rules: LesionRules,
) -> tuple[float, float]:
    everywhere, by_edges = np.ones((3, 3, 3)), ndimage.generate_binary_structure(3, 2)
    parts, count = ndimage.label(pred, everywhere)
    dilated = ndimage.binary_dilation(truth, by_edges, iterations=rules.dilation)
    groups, group_count = ndimage.label(dilated, everywhere)
    spare = set(range(1, count + 1))
    scores: list[tuple[float, float]] = []
    for group in range(1, group_count + 1):
        lesion = truth & (groups == group)
        reach = ndimage.binary_dilation(lesion, by_edges, iterations=rules.dilation)
        mine = set(np.unique(parts[reach])) - {0}
        spare -= mine
        answer = np.isin(parts, sorted(mine))
        if lesion.sum() * np.prod(spacing) > rules.min_lesion_mm3:
            distance = surface_hd95(answer, lesion, spacing)
            scores.append((dice(answer, lesion), min(distance, PENALTY_MM)))
    scores += [(0.0, PENALTY_MM)] * len(spare)
    mean_dice, mean_hd95 = np.mean(scores, axis=0)
    return float(mean_dice), float(mean_hd95)


@pytest.mark.parametrize("rules", [{"dilation": 0}, {"min_lesion_mm3": -1}])
def test_rules_without_meaning_are_refused(rules: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="at least 1 step"):
        LesionRules(**rules)
