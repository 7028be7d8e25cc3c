"""Checkpoints are whole, plain and refused when they are not."""

from __future__ import annotations

import pickle
import random
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from model_core.errors import CheckpointError
from training.loop.checkpoint import (
    clean_partials,
    load_checkpoint,
    load_last,
    previous_path,
    restore_rng_state,
    rng_state,
    save_checkpoint,
    save_last,
    step_path,
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


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path, chance = tmp_path / "last.pt", random.Random(0)
    save_checkpoint(path, {"step": 3, "config": {"patch": [1, 2]}, "w": torch.arange(64.0)})
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        records = archive.start_dir
    refused = 0
    for _ in range(400):
        changed = bytearray(whole)
        changed[chance.randrange(records)] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            content = load_checkpoint(path)
        except CheckpointError:
            refused += 1
            continue
        assert (content["step"], content["config"]) == (3, {"patch": [1, 2]})
        assert torch.equal(content["w"], torch.arange(64.0))
    assert refused > 200


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


def test_random_numbers_continue_where_they_were(tmp_path: Path) -> None:
    """Of torch, Python and NumPy, after a trip through a file that may hold plain values only."""

    def draw() -> tuple[list[float], float, float]:
        return torch.rand(3).tolist(), random.random(), float(np.random.rand())

    random.gauss(0, 1), np.random.randn()  # halves of pairs are kept back
    save_checkpoint(tmp_path / "last.pt", {"rng": rng_state()})
    expected = draw()
    restore_rng_state(load_checkpoint(tmp_path / "last.pt")["rng"])
    assert draw() == expected


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_checkpoint_before_the_last_is_kept(tmp_path: Path) -> None:
    last = tmp_path / "last.pt"
    for step in (1, 2, 3):
        save_last(last, {"step": step})
    assert load_checkpoint(last)["step"] == 3
    assert load_checkpoint(previous_path(last))["step"] == 2
    assert names(tmp_path) == ["last.previous.pt", "last.pt"]


def test_a_copy_of_a_step_stays_what_it_was(tmp_path: Path) -> None:
    last = tmp_path / "last.pt"
    save_last(last, {"step": 4}, copies=(step_path(last, 4),))
    save_last(last, {"step": 5})
    save_last(last, {"step": 6})
    assert load_checkpoint(tmp_path / "step_4.pt")["step"] == 4


def test_where_files_cannot_be_linked_they_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links on this file system")

    monkeypatch.setattr("os.link", refuse)
    last = tmp_path / "last.pt"
    save_last(last, {"step": 1}, copies=(step_path(last, 1),))
    save_last(last, {"step": 2})
    assert load_checkpoint(previous_path(last))["step"] == 1
    assert load_checkpoint(step_path(last, 1))["step"] == 1


def test_a_damaged_last_gives_way_to_the_one_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = tmp_path / "last.pt"
    for step in (1, 2):
        save_last(last, {"step": step, "w": torch.zeros(1000)})
    last.write_bytes(last.read_bytes()[:900])
    content, source = load_last(last)
    assert (content["step"], source) == (1, previous_path(last))
    assert "damaged" in caplog.text
    save_last(last, {"step": 3})
    assert load_checkpoint(previous_path(last))["step"] == 1, "the damaged file must not be kept"
    assert load_last(last)[0]["step"] == 3


def test_a_last_that_is_missing_gives_way_too(tmp_path: Path) -> None:
    last = tmp_path / "last.pt"
    for step in (1, 2):
        save_last(last, {"step": step})
    last.unlink()
    assert load_last(last)[0]["step"] == 1


def test_with_nothing_before_it_a_damaged_last_is_an_error(tmp_path: Path) -> None:
    last = tmp_path / "last.pt"
    last.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="damaged"):
        load_last(last)


WRITER = """
import os, sys, time
from pathlib import Path
import torch
from training.loop import checkpoint
from training.loop.checkpoint import save_last

last = Path(sys.argv[1])
save_last(last, {"step": 1, "w": torch.ones(1000)})
save_last(last, {"step": 2, "w": torch.ones(1000)})

def in_the_middle(number):
    os.ftruncate(number, 2000)
    print("writing", flush=True)
    time.sleep(60)

os.fsync = in_the_middle
save_last(last, {"step": 3, "w": torch.ones(1000)})
"""


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_the_checkpoints_as_they_were(tmp_path: Path) -> None:
    """SIGKILL in the middle of the write: nothing can be tidied up by the writer."""
    last = tmp_path / "last.pt"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(last)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        writer.send_signal(signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    assert names(tmp_path) == ["last.partial", "last.previous.pt", "last.pt"]
    content, source = load_last(last)
    assert (content["step"], source) == (2, last)
    assert torch.equal(content["w"], torch.ones(1000))
    clean_partials(tmp_path)
    assert names(tmp_path) == ["last.previous.pt", "last.pt"]
