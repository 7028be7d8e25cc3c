"""Window weights, the weighted mean they form, and the sums that are handed out early."""

import pytest
import torch
from monai.data.utils import compute_importance_map

from model_core.inference.blending import (
    WEIGHT_FLOOR,
    FinishedSlabs,
    WeightedMean,
    blend_weights,
    gaussian_weights,
)

WINDOWS = [(1, 1, 1), (5, 4, 3), (16, 16, 16), (48, 8, 31), (7, 9)]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("sigma_scale", [0.125, 0.5])
def test_gaussian_weights_equal_monai(window, sigma_scale):
    expected = compute_importance_map(window, mode="gaussian", sigma_scale=sigma_scale)
    torch.testing.assert_close(gaussian_weights(window, sigma_scale), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("window", WINDOWS)
def test_weights_are_symmetric_and_between_the_floor_and_one(window):
    weights = gaussian_weights(window)
    assert torch.equal(weights, weights.flip(list(range(weights.ndim))))
    assert weights.min() >= WEIGHT_FLOOR
    assert weights.max() <= 1
    centre = tuple(side // 2 for side in window)
    assert weights[centre] == weights.max()


def test_constant_weights_are_ones():
    assert torch.equal(blend_weights("constant", (2, 3), "cpu"), torch.ones(2, 3))


def test_overlapping_windows_are_averaged_by_their_weights():
    weights = torch.tensor([1.0, 3.0])
    mean = WeightedMean(1, (3,), weights)
    mean.add((slice(0, 2),), torch.tensor([[10.0, 20.0]]))
    mean.add((slice(1, 3),), torch.tensor([[60.0, 5.0]]))
    # The middle voxel: (3 x 20 + 1 x 60) / 4.
    assert torch.equal(mean.result(), torch.tensor([[10.0, 30.0, 5.0]]))


def test_the_scores_handed_over_are_not_changed_and_no_graph_is_kept():
    scores = torch.full((1, 2), 2.0, requires_grad=True)
    mean = WeightedMean(1, (2,), torch.full((2,), 0.5))
    mean.add((slice(0, 2),), scores)
    assert torch.equal(scores, torch.full((1, 2), 2.0))
    assert not mean.result().requires_grad


def test_a_score_that_is_no_number_is_told_at_once():
    mean = WeightedMean(1, (4,), torch.ones(2))
    assert mean.add((slice(0, 2),), torch.ones(1, 2))
    assert not mean.add((slice(2, 4),), torch.tensor([[1.0, float("nan")]]))


@pytest.mark.parametrize("starts", [[0], [0, 1, 2, 3], [0, 2, 3], [0, 4], [0, 0, 3, 3]])
def test_slabs_are_the_sums_in_order_without_gaps(starts):
    """Whatever the steps, with the ring of rows wrapping at other places than the windows."""
    generator = torch.Generator().manual_seed(7)
    weights = torch.rand(4, 5, generator=generator)
    rows = starts[-1] + 4
    expected, handed_out = torch.zeros(2, rows, 5), []
    slabs = FinishedSlabs(
        2, (rows, 5), weights, lambda first, sums: handed_out.append((first, sums.clone()))
    )
    for start in starts:
        scores = torch.rand(2, 4, 5, generator=generator)
        expected[:, start : start + 4] += scores * weights
        assert slabs.add((slice(start, start + 4), slice(0, 5)), scores)
        # Nothing that a later window could touch has left.
        assert sum(sums.shape[1] for _, sums in handed_out) <= start
    slabs.close()
    firsts = [first for first, _ in handed_out]
    lengths = [sums.shape[1] for _, sums in handed_out]
    assert firsts == [sum(lengths[:i]) for i in range(len(lengths))]
    torch.testing.assert_close(
        torch.cat([sums for _, sums in handed_out], 1), expected, rtol=1e-6, atol=0
    )


def test_slabs_tell_a_bad_score_in_either_part_of_a_wrapped_window():
    for bad in (0, 3):
        slabs = FinishedSlabs(1, (6, 2), torch.ones(4, 2), lambda first, sums: None)
        slabs.add((slice(0, 4), slice(0, 2)), torch.ones(1, 4, 2))
        scores = torch.ones(1, 4, 2)
        scores[0, bad, 1] = float("inf")
        assert not slabs.add((slice(2, 6), slice(0, 2)), scores)
