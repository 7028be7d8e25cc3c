"""Validation measures what it says: Dice of whole volumes, the same on both grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from training.cases import CachedCase
from training.config import TrainConfig
from training.validate import Validation, predict_labels, validate

MakeCase = Callable[..., CachedCase]


class Knower(nn.Module):
    """Reads the regions off a noise-free image whose channels are the labels, shifted by one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        labels = x[:, 0]
        whole, core, enhancing = labels > 0, (labels == 1) | (labels == 3), labels == 3
        return torch.stack([whole, core, enhancing], 1).float() * 20 - 10


def labels_as_image(case: CachedCase) -> None:
    labels = np.asarray(case.labels())
    np.save(case.folder / "image.npy", np.repeat(labels[None], 4, axis=0).astype(np.float16))


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_network_that_knows_the_truth_scores_one(
    tiny_config: TrainConfig, make_case: MakeCase, overlap: float
) -> None:
    case = make_case("BraTS2021_00001")
    labels_as_image(case)
    config = replace(tiny_config, validation_overlap=overlap)
    result = validate(Knower(), [case], config)
    assert result.cases == {"BraTS2021_00001": {"WT": 1.0, "TC": 1.0, "ET": 1.0}}
    predicted = predict_labels(Knower(), case.image().astype(np.float32), config, overlap=overlap)
    np.testing.assert_array_equal(predicted, case.labels())


def test_dice_by_hand_when_a_slab_is_missed(tiny_config: TrainConfig, make_case: MakeCase) -> None:
    case = make_case("local", labels=2)
    labels_as_image(case)
    image = np.array(case.image())
    image[:, 10:14] = 0
    np.save(case.folder / "image.npy", image)
    scores = validate(Knower(), [case], tiny_config).cases["case 1"]
    assert scores["WT"] == pytest.approx(2 * 12 / (12 + 16))
    assert scores["TC"] == scores["ET"] == 1.0  # absent and not predicted


def test_means_are_over_cases_and_the_score_over_regions() -> None:
    result = Validation(
        cases={"a": {"WT": 1.0, "TC": 0.5, "ET": 0.0}, "b": {"WT": 0.5, "TC": 0.5, "ET": 0.5}}
    )
    assert result.mean == {"WT": 0.75, "TC": 0.5, "ET": 0.25}
    assert result.score == 0.5
