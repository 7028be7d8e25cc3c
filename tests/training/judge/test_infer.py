"""The walk over a prepared image: means, passes and windows that the network takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from tests.training.judge.small_models import NearestMean, nifti_config, png_config
from training.config import Augmentation
from training.judge.infer import labels_on_grid, passes_of, predictor, window_plan


class Slope(nn.Module):
    """Answers with how far right a voxel is in the window: no mirror leaves it alone."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ramp = torch.arange(x.shape[-1], dtype=x.dtype) * self.scale
        return torch.stack([ramp.expand(x[:, 0].shape)] * 3, 1)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_networks_and_passes_are_averaged_in_logits() -> None:
    config = nifti_config(augmentation=Augmentation())
    windows = torch.zeros(1, 1, 8, 8, 8)
    passes = passes_of(config, "fast")
    assert passes == ((), (0,), (1,), (2,))
    networks = [Slope(1.0), Slope(3.0)]
    with torch.inference_mode():
        scores = predictor(networks, config, passes=passes)(windows)
    ramp = np.arange(8.0)
    expected = 2 * (3 * ramp + ramp[::-1]) / 4  # 2: the mean of the scales; one of four is mirrored
    assert scores.dtype == torch.float32
    assert_allclose(scores[0, 0, 0, 0].numpy(), expected, rtol=1e-6)


def test_slices_have_two_mirrors_and_volumes_three() -> None:
    flips = Augmentation()
    assert len(passes_of(png_config(), "full")) == 4
    assert all(0 not in flip for flip in passes_of(png_config(), "full"))
    assert len(passes_of(nifti_config(augmentation=flips), "full")) == 8
    assert passes_of(nifti_config(), "full") == ((),)


def test_windows_are_rounded_up_to_what_the_network_takes() -> None:
    network = NearestMean((0.0, 1.0))
    volume = window_plan(network, nifti_config(patch=(20, 16, 9)), 0.5)
    assert (volume.window, volume.batch) == ((24, 16, 16), 1)
    flat = window_plan(network, png_config(patch=(1, 33, 40)), 0.5)
    assert (flat.window, flat.batch) == ((1, 40, 40), 3)


def test_labels_do_not_depend_on_how_many_slices_go_at_once() -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(120, 60, (1, 7, 40, 36)).astype(np.float32))
    network = NearestMean((50.0, 190.0), dims=2)
    found = []
    for batch in (1, 3, 8):
        config = png_config(batch=batch)
        plan = window_plan(network, config, 0.5)
        found.append(labels_on_grid(predictor([network], config), image, config.task, plan))
    assert_array_equal(found[0], (image[0] > 120).numpy())
    assert_array_equal(found[1], found[0])
    assert_array_equal(found[2], found[0])
