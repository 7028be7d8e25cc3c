"""Window weights and the weighted mean they form."""

import pytest
import torch
from monai.data.utils import compute_importance_map

from model_core.inference.blending import (
    WEIGHT_FLOOR,
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
