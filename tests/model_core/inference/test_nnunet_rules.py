"""nnU-Net's rules for laying and weighing windows and for reading regions, by its own numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model_core.errors import OptionError
from model_core.imaging.study import make_study
from model_core.imaging.volume import Volume
from model_core.inference.blending import NNUNET_FLOOR, gaussian_weights
from model_core.inference.windows import WindowPlan, plan_windows, window_starts
from model_core.types import CONTRASTS
from tests.model_core.inference.test_segmenter import (
    AFFINE,
    Regions,
    make_head,
    make_segmenter,
    zscored,
)


@pytest.mark.parametrize(
    ("size", "window", "starts"),
    [
        (110, 64, (0, 23, 46)),  # the example in nnU-Net's source; MONAI's are 0, 32, 46
        (64, 64, (0,)),
        (65, 64, (0, 1)),
        (96, 64, (0, 32)),
        (155, 128, (0, 27)),
        (240, 128, (0, 56, 112)),
    ],
)
def test_steps_are_equal_and_at_most_half_a_window(
    size: int, window: int, starts: tuple[int, ...]
) -> None:
    assert window_starts(size, window, 0.5, "nnunet") == starts


def test_every_voxel_lies_in_a_window() -> None:
    covered = np.zeros((37, 20, 51), bool)
    for where in plan_windows(covered.shape, (16, 16, 16), 0.5, "nnunet"):
        covered[where] = True
    assert covered.all()


def test_the_bump_stands_on_voxel_half_n_and_falls_to_half_precisions_least() -> None:
    """exp(−x² / 2σ²) with σ = n / 8 and x counted from n // 2."""
    weights = gaussian_weights((16, 32, 16), tiling="nnunet")
    assert float(weights[8, 16, 8]) == 1.0
    assert float(weights[6, 16, 8]) == pytest.approx(np.exp(-0.5))
    assert float(weights[8, 8, 8]) == pytest.approx(np.exp(-2))
    assert float(weights[0, 0, 0]) == pytest.approx(NNUNET_FLOOR)
    assert torch.equal(weights[7], weights[9])


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(OptionError, match="tiling"):
        WindowPlan(window=(8, 8, 8), tiling="square")  # type: ignore[arg-type]


def test_painted_regions_need_no_region_around_them() -> None:
    """The last region that is found gives the label; the outputs' order is the card's."""
    arrays = make_head()
    study = make_study({c: Volume(a, AFFINE) for c, a in zip(CONTRASTS, arrays, strict=True)})
    changes = {
        "heads": "regions",
        "outputs": ["TC", "WT", "ET"],
        "network": {"in_channels": 4, "out_channels": 3},
        "region_rule": "painted",
    }
    labels = make_segmenter(Regions(), **changes).segment(study).labels
    scores = zscored(arrays)
    tc, wt, et = scores[1] > 0, scores[2] > 0, scores[3] > 0
    expected = np.where(et, 3, np.where(tc, 1, np.where(wt, 2, 0)))
    assert (et & ~wt).any()
    # Where a z-score is within rounding of 0 either answer is right.
    sure = np.abs(scores[1:]).min(axis=0) > 1e-4
    sure |= (arrays == 0).all(axis=0)
    assert np.array_equal(labels[sure], expected[sure])
