"""The comparison of mirrored passes: what is gained, what it costs, on cases that are fair."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model_core.errors import OptionError
from model_core.types import Tta
from tests.training.judge.small_models import PNG_MEANS, NearestMean, png_config, write_run
from tests.training.tiny import write_png_dataset
from training.judge.inputs import Inputs, find_inputs
from training.judge.loading import load_model
from training.judge.models import TrainedModel
from training.judge.score import CaseScore
from training.judge.tta import Comparison, Trial, compare_tta, unseen_cases


class OneSided(NearestMean):
    """Sees next to nothing in the right half of what it is shown."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x).clone()
        blind = slice(x.shape[-1] // 2, None)
        logits[..., blind] = 0
        logits[:, 0, ..., blind] = 1
        return logits


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainedModel:
    torch.set_num_threads(1)
    monkeypatch.setattr(
        "training.judge.loading.build_network", lambda name, **_: OneSided(PNG_MEANS, 2)
    )
    config = png_config(patch=(1, 64, 64), overlap=0.0)
    weights = NearestMean(PNG_MEANS, 2).state_dict()
    loaded = load_model(write_run(tmp_path / "run", config, weights, training=["png_001"]))
    assert isinstance(loaded, TrainedModel)
    return loaded


@pytest.fixture
def inputs(tmp_path: Path, model: TrainedModel) -> Inputs:
    return find_inputs(write_png_dataset(tmp_path, cases=3), model, which="all")


def test_cases_that_trained_the_model_and_those_without_truth_are_left_out(
    model: TrainedModel, inputs: Inputs
) -> None:
    assert [case.name for case in inputs.cases] == [f"png_{n:03d}" for n in range(5)]
    assert [case.name for case in unseen_cases(model, inputs.cases)] == ["png_000", "png_002"]
    with pytest.raises(OptionError, match="1 with a truth, all of which trained it"):
        unseen_cases(model, inputs.cases[1:2])


def test_mirrors_that_help_are_measured_as_a_gain(model: TrainedModel, inputs: Inputs) -> None:
    fair = replace(inputs, cases=unseen_cases(model, inputs.cases))
    comparison = compare_tta(model, fair)
    # slices have two mirrors: none 1, fast 1 + 2, full 4 passes
    assert comparison.passes == {"none": 1, "fast": 3, "full": 4}
    assert comparison.gain("none") == 0
    assert comparison.gain("full") > 0.1
    report = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert [case["case"] for case in report["cases"]] == ["case 1", "case 2"]  # no file's name
    assert list(report["cases"][1]["modes"]) == ["none", "fast", "full"]
    assert report["modes"]["full"]["gain"] == pytest.approx(comparison.gain("full"))
    assert all(mode["median_seconds"] > 0 for mode in report["modes"].values())


def test_cost_is_the_median_of_ratios_and_gain_the_difference_of_means() -> None:
    def trial(seconds: float, value: float) -> Trial:
        from model_core.metrics import RegionMetrics

        scores = dict.fromkeys(RegionMetrics.__dataclass_fields__, 0.0) | {"dice": value}
        metrics = RegionMetrics(**scores)  # type: ignore[arg-type]
        return Trial(seconds=seconds, score=CaseScore(regions={"a": metrics}, label_dice={}))

    trials: dict[str, dict[Tta, Trial]] = {
        "case 1": {"none": trial(1, 0.5), "full": trial(8, 0.7)},
        "case 2": {"none": trial(2, 0.6), "full": trial(14, 0.6)},
        "case 3": {"none": trial(4, 0.7), "full": trial(40, 0.6)},
    }
    comparison = Comparison(trials=trials, passes={"none": 1, "full": 8})
    assert comparison.cost("full") == 8  # of 8, 7 and 10
    assert comparison.seconds("full") == 14
    assert comparison.gain("full") == pytest.approx(0.1 / 3)
