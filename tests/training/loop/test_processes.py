"""Two processes train the weights that one does, report its losses, and only one of them writes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.loop import one_of_many
from tests.training.loop.one_of_many import Run
from training.config import Augmentation, TrainConfig
from training.data.cases import CachedCase
from training.loop.checkpoint import load_checkpoint
from training.loop.options import RunOptions
from training.loop.processes import rank, world_size
from training.runs.run_folder import RunFolder

MakeCase = Callable[..., CachedCase]
ROOT = Path(__file__).parents[3]
_RANKS = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "TORCHELASTIC_RUN_ID",
)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _RANKS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({}, 0),
        ({"RANK": "3", "LOCAL_RANK": "1"}, 3),
        ({"LOCAL_RANK": "2"}, 2),
        ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, 0),
    ],
)
def test_a_process_knows_its_number_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], number: int
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert rank() == number


def test_another_host_is_never_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_RANK", "1")
    assert rank() != 0


def test_torchrun_decides_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    options = RunOptions(devices=4, nodes=2)
    assert world_size(options) == 8
    for name, value in {
        "TORCHELASTIC_RUN_ID": "x",
        "LOCAL_WORLD_SIZE": "2",
        "WORLD_SIZE": "6",
    }.items():
        monkeypatch.setenv(name, value)
    assert world_size(options) == 6
    assert world_size(RunOptions()) == 6


def launched(command: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in _RANKS}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def timeless(folder: RunFolder, kind: str) -> list[dict[str, Any]]:
    clock = ("seconds", "elapsed", "progress")
    return [{k: v for k, v in line.items() if k not in clock} for line in folder.records(kind)]


@pytest.mark.slow
@pytest.mark.timeout(
    600
)  # seconds on a calm machine; four processes that import torch on a busy one
@pytest.mark.parametrize(("way", "batch", "accumulate"), [("devices", 2, 1), ("torchrun", 1, 4)])
def test_two_processes_train_what_one_trains(
    tiny_config: TrainConfig,
    make_case: MakeCase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    batch: int,
    accumulate: int,
) -> None:
    """Batches split by patches (``devices``), whole micro-batches dealt out (``torchrun``)."""
    monkeypatch.setattr("training.loop.trainer.build_network", one_of_many.network)
    config = replace(
        tiny_config, steps=4, batch=batch, accumulate=accumulate, epoch_steps=2, optimiser="sgd",
        learning_rate=0.05, ema_decay=0.9, patch=(16, 16, 16), augmentation=Augmentation(affine=0),
    )  # fmt: skip
    case = make_case()
    one = Run(config=config, case=case, results=tmp_path / "one", devices=1)
    one_of_many.carry_out(one)

    two = replace(one, results=tmp_path / "two", devices=2 if way == "devices" else 1)
    description, script = tmp_path / "run.pickle", str(Path(one_of_many.__file__))
    description.write_bytes(pickle.dumps(two))
    start = [sys.executable]
    if way == "torchrun":
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launched([*start, script, str(description)])

    ours, theirs = RunFolder(two.results / "first"), RunFolder(one.results / "first")
    assert [path.name for path in two.results.iterdir()] == ["first"]
    states = [load_checkpoint(folder.last) for folder in (ours, theirs)]
    for part in ("network", "ema"):
        for name, value in states[1][part].items():
            torch.testing.assert_close(states[0][part][name], value, rtol=1e-4, atol=1e-6)
    assert len(states[0]["rng"]) == 2
    for kind in ("step", "epoch", "validation"):
        for mine, other in zip(timeless(ours, kind), timeless(theirs, kind), strict=True):
            assert mine.keys() == other.keys()
            for key in ("step", "loss", "gradient_norm", "train_loss", "mean", "average", "score"):
                if key in other:
                    assert mine[key] == pytest.approx(other[key], rel=1e-4, abs=1e-6), (kind, key)
