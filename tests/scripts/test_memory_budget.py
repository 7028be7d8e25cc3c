"""scripts/gpu/memory_budget.py: real steps are taken, and the verdict follows what was measured.

No GPU is needed: the steps run on the CPU, and a stand-in reads the memory.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from model_core.errors import OptionError
from scripts.gpu import memory_budget
from scripts.gpu.memory_budget import GIB, Meter, main, measure, noise, read_config

TINY = (
    "network_args.features=[4,4,8,8]",
    "network_args.hidden=16",
    "network_args.depths=[1,1,1,1]",
    "patch=[16,16,16]",
    "batch=1",
    "accumulate=2",
)


def words(*more: str) -> list[str]:
    settings = [part for setting in TINY for part in ("--set", setting)]
    return ["small-segmamba", *settings, "--steps", "2", *more]


@pytest.fixture
def meter() -> Meter:
    """Six GiB, once the peak was asked to be forgotten."""
    held = {"peak": 99 * GIB}
    return Meter(start=lambda: held.update(peak=6 * GIB), peak_bytes=lambda: held["peak"])


def test_a_step_that_fits_says_so(meter: Meter, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("--memory", "8"), meter=meter) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[-2:] == ["6.00", "GiB"]
    assert said[-1] == "FITS into 8 GiB"


def test_a_step_that_does_not_fit_is_exit_code_1(
    meter: Meter, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words("--memory", "5.5"), meter=meter) == 1
    assert capsys.readouterr().out.endswith("DOES NOT FIT into 5.5 GiB\n")


def test_an_epoch_is_as_many_steps_as_the_config_says(meter: Meter) -> None:
    config = read_config("small-segmamba", [*TINY, "epoch_steps=40"])
    budget = measure(config, "cpu", steps=2, meter=meter)
    assert budget.step_seconds > 0
    assert budget.epoch_seconds == pytest.approx(40 * budget.step_seconds)


def test_the_noise_has_the_shape_of_a_step() -> None:
    config = read_config("small-segmamba", [*TINY, "batch=3"])
    batches = noise(config)
    assert len(batches) == config.accumulate == 2
    images, labels, _ = batches[0]
    assert images.shape == (3, 4, 16, 16, 16)
    assert labels.shape == (3, 16, 16, 16)
    assert set(labels.unique().tolist()) == {0, 1, 2, 3}
    assert not torch.equal(images, batches[1].images)


def test_memory_that_runs_out_names_the_setting_to_change(
    meter: Meter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("training.loop.trainer.Trainer.step", full)
    assert main(words("--memory", "8"), meter=meter) == 1
    assert "checkpoint_activations" in capsys.readouterr().out


def test_a_run_is_measured_by_its_own_config(tmp_path: Path) -> None:
    config = read_config("small-segmamba", TINY)
    kept = tmp_path / "config.json"
    kept.write_text(json.dumps(config.to_json()), encoding="utf-8")
    assert read_config(str(kept), []) == config
    assert read_config(str(kept), ["batch=2"]).batch == 2
    with pytest.raises(OptionError, match="absent"):
        read_config(str(tmp_path / "absent.json"), [])


def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert memory_budget.main(["small-segmamba"]) == 2
    assert "No CUDA device" in capsys.readouterr().out


def test_an_unknown_recipe_is_wrong_input(meter: Meter, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-recipe"], meter=meter) == 2
    assert "small-segmamba" in capsys.readouterr().out
