"""Series are read with what is missing left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.runs.run_folder import RunFolder
from training.runs.series import best_of, column, evaluations, pseudo_dice, smoothed


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "first")


def test_a_column_leaves_out_what_is_no_number() -> None:
    lines = [{"step": 1, "loss": 2.0}, {"step": 2}, {"step": 3, "loss": None}, {"loss": 1.0}]
    at, values = column([*lines, {"step": 4, "loss": 1}], "loss")
    assert at.tolist() == [1, 4]
    assert values.tolist() == [2, 1]
    assert column([], "loss")[0].size == 0


def test_a_score_is_computed_where_it_was_not_recorded(folder: RunFolder) -> None:
    folder.record("validation", step=1, mean={"WT": 0.8, "TC": 0.6, "ET": None})
    folder.record("validation", step=2, mean={})
    folder.record("validation", step=3, mean={"WT": 0.9}, score=0.7)
    assert [(one.step, one.score) for one in evaluations(folder)] == [
        (1, pytest.approx(0.7)),
        (3, 0.7),
    ]


def test_the_best_is_the_earlier_of_equals(folder: RunFolder) -> None:
    for step, score in ((1, 0.5), (2, 0.75), (3, 0.75), (4, 0.25)):
        folder.record("validation", step=step, score=score)
    best = best_of(evaluations(folder))
    assert best is not None
    assert best.step == 2
    assert best_of([]) is None


@pytest.mark.parametrize("name", ["ema_pseudo_dice", "average"])
def test_pseudo_dice_by_class_and_smoothed(folder: RunFolder, name: str) -> None:
    folder.record("epoch", step=250, pseudo_dice={"WT": 0.5}, **{name: 0.25})
    folder.record("epoch", step=500, pseudo_dice={"WT": None, "ET": 0.75}, **{name: 0.375})
    found = {
        key: (at.tolist(), values.tolist()) for key, (at, values) in pseudo_dice(folder).items()
    }
    assert found == {
        "WT": ([250], [0.5]),
        "ET": ([500], [0.75]),
        "": ([250, 500], [0.25, 0.375]),
    }


def test_pseudo_dice_in_other_forms(folder: RunFolder) -> None:
    folder.record("epoch", pseudo_dice=[0.5, 0.25], ema_pseudo_dice=[0.5, None])
    folder.record("epoch", pseudo_dice=0.75)
    found = {
        key: (at.tolist(), values.tolist()) for key, (at, values) in pseudo_dice(folder).items()
    }
    assert found == {
        "1": ([1], [0.5]), "2": ([1], [0.25]), "": ([1], [0.5]), "mean": ([2], [0.75]),
    }  # fmt: skip


def test_smoothing_keeps_a_constant_and_follows_a_step() -> None:
    np.testing.assert_allclose(smoothed(np.full(20, 3.0)), 3.0)
    level = smoothed(np.array([0.0] * 50 + [1.0] * 50), span=9)
    assert level[49] == 0
    assert 0 < level[50] < level[60] < 1
    assert level[50] == pytest.approx(0.2, abs=1e-3)  # 2 / (span + 1)
