"""Checkpoints are whole, plain and refused when they are not."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from model_core.errors import CheckpointError
from training.checkpoint import (
    load_checkpoint,
    restore_rng_state,
    rng_state,
    save_checkpoint,
)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", {"step": 3, "w": torch.arange(4.0)})
    content = load_checkpoint(tmp_path / "last.pt")
    assert content["step"] == 3
    assert torch.equal(content["w"], torch.arange(4.0))
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 3})
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        save_checkpoint(path, {"step": lambda: None})
    assert load_checkpoint(path)["step"] == 3


def test_a_missing_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no last\.pt"):
        load_checkpoint(tmp_path / "last.pt")


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"w": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


class Hostile:
    """What a pickle bomb looks like."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code ran')",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"format": 1, "config": Hostile()}, path)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"format": 99}, path)
    with pytest.raises(CheckpointError, match="format 1"):
        load_checkpoint(path)


def test_random_numbers_continue_where_they_were() -> None:
    state = rng_state()
    expected = torch.rand(3)
    restore_rng_state(state)
    assert torch.equal(torch.rand(3), expected)
