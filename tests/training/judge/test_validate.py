"""Validation measures what it says: Dice of whole volumes, the same on both grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from training.config import TrainConfig
from training.data.arrays import write_array
from training.data.cases import CachedCase
from training.judge.validate import Validation, predict_labels, validate

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
    set_image(case, np.repeat(case.labels()[:][None], 4, axis=0))


def set_image(case: CachedCase, image: NDArray[Any]) -> None:
    path = case.folder / "image.b2nd"
    path.unlink()
    write_array(path, image.astype(np.float16))


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_network_that_knows_the_truth_scores_one(
    tiny_config: TrainConfig, make_case: MakeCase, overlap: float
) -> None:
    case = make_case("BraTS2021_00001")
    labels_as_image(case)
    config = replace(tiny_config, validation_overlap=overlap)
    result = validate(Knower(), [case], config)
    assert result.cases == {"BraTS2021_00001": {"WT": 1.0, "TC": 1.0, "ET": 1.0}}
    image = case.image()[:].astype(np.float32)
    predicted = predict_labels(Knower(), image, config, overlap=overlap)
    np.testing.assert_array_equal(predicted, case.labels()[:])


def test_dice_by_hand_when_a_slab_is_missed(tiny_config: TrainConfig, make_case: MakeCase) -> None:
    case = make_case("local", labels=2)
    labels_as_image(case)
    image = np.array(case.image()[:])
    image[:, 10:14] = 0
    set_image(case, image)
    scores = validate(Knower(), [case], tiny_config).cases["case 1"]
    assert scores["WT"] == pytest.approx(2 * 12 / (12 + 16))
    assert scores["TC"] == scores["ET"] == 1.0  # absent and not predicted


def test_means_are_over_cases_and_the_score_over_regions() -> None:
    result = Validation(
        cases={"a": {"WT": 1.0, "TC": 0.5, "ET": 0.0}, "b": {"WT": 0.5, "TC": 0.5, "ET": 0.5}}
    )
    assert result.mean == {"WT": 0.75, "TC": 0.5, "ET": 0.25}
    assert result.score == 0.5


def test_labels_are_judged_beside_the_regions(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    case = make_case("BraTS2021_00001")
    labels_as_image(case)
    result = validate(Knower(), [case], tiny_config)
    assert result.labels == {"BraTS2021_00001": {"NCR": 1.0, "ED": 1.0, "ET": 1.0}}
    assert result.to_json()["label_mean"] == {"NCR": 1.0, "ED": 1.0, "ET": 1.0}


def test_every_case_is_shown_with_what_was_predicted(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    cases = [make_case("one"), make_case("other")]
    for case in cases:
        labels_as_image(case)
    shown = {}

    def show(name: str, image: object, truth: object, predicted: object) -> None:
        shown[name] = (np.shape(image), np.array_equal(truth, predicted))

    validate(Knower(), cases, tiny_config, show=show)
    assert shown == {"case 1": ((4, 40, 36, 32), True), "case 2": ((4, 40, 36, 32), True)}


def test_a_slice_network_is_walked_through_the_volume(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    """Any number of slices in any batch gives what each slice gives alone."""

    class SliceKnower(Knower):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.dim() == 4
            assert len(x) <= 3
            return super().forward(x)

    case = make_case("one")
    labels_as_image(case)
    config = replace(
        tiny_config,
        task=replace(tiny_config.task, dims=2),
        network="lightm-unet",
        network_args={},
        patch=(1, 32, 32),
        batch=3,
        validation_overlap=0.5,
    )
    result = validate(SliceKnower(), [case], config)
    assert result.score == 1.0
