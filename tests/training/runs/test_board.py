"""TensorBoard shows what was recorded, forgets what is done again, and may be missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.runs.board import ABSENT, Board
from training.runs.run_folder import RunFolder


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Steps and values as TensorBoard would show them."""
    shown = EventAccumulator(str(folder), purge_orphaned_data=True).Reload()
    if tag not in shown.Tags()["scalars"]:
        return []
    return [(event.step, round(event.value, 4)) for event in shown.Scalars(tag)]


def test_numbers_of_every_kind_are_curves(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    folder.record("step", step=10, loss=1.5, learning_rate=0.25, gradient_norm=None, seconds=2.0)
    folder.record("validation", step=10, mean={"WT": 0.5, "TC": float("nan")}, score=0.5)
    folder.record("epoch", pseudo_dice={"WT": 0.75}, average=0.25)
    folder.close()
    shown = folder.tensorboard
    assert curve(shown, "train/loss") == [(10, 1.5)]
    assert curve(shown, "train/learning_rate") == [(10, 0.25)]
    assert curve(shown, "validation/dice_WT") == [(10, 0.5)]
    assert curve(shown, "validation/mean_dice") == [(10, 0.5)]
    assert curve(shown, "pseudo_dice/class_WT") == [(10, 0.75)], "without a step: the last one"
    assert curve(shown, "pseudo_dice/ema") == [(10, 0.25)]
    assert curve(shown, "train/gradient_norm") == curve(shown, "validation/dice_TC") == []


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    for step in (10, 20, 30):
        folder.record("step", step=step, loss=float(step))
    folder.close()
    again = RunFolder(folder.path)
    again.forget_after(20)
    for step in (25, 30):
        again.record("step", step=step, loss=step / 100)
    again.close()
    expected = [(10, 10.0), (20, 20.0), (25, 0.25), (30, 0.3)]
    assert curve(folder.tensorboard, "train/loss") == expected
    assert [(line["step"], line["loss"]) for line in again.records("step")] == expected


def test_a_run_closed_in_between_goes_on(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.add("step", {"step": 1, "loss": 1.0})
    board.close()
    board.close()
    board.add("step", {"step": 2, "loss": 0.5})
    board.close()
    assert curve(tmp_path, "train/loss") == [(1, 1.0), (2, 0.5)]


def test_a_forgotten_board_is_written_out(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.add("step", {"step": 1, "loss": 1.0})
    del board
    assert curve(tmp_path, "train/loss") == [(1, 1.0)]


def test_nothing_to_show_opens_nothing(tmp_path: Path) -> None:
    board = Board(tmp_path / "tensorboard")
    board.add("step", {"step": 1, "loss": None})
    board.add("end", {"step": 1})
    assert not (tmp_path / "tensorboard").exists()


def test_without_tensorboard_the_run_goes_on_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    folder = RunFolder.create(tmp_path, "first")
    said: list[str] = []
    with folder.at_work(said.append):
        for step in (1, 2):
            folder.record("step", step=step, loss=1.0)
    assert said == [ABSENT]
    assert "pip install tensorboard" in ABSENT
    assert len(folder.records("step")) == 2
    assert not folder.tensorboard.exists()
