"""``segmamba train`` and ``segmamba export`` as typed: what they ask for, and how they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from model_core.checkpoints import load_bundle
from model_core.cli.main import _as_command
from model_core.errors import (
    BackendError,
    CheckpointError,
    NumericalError,
    OptionError,
    StudyError,
)
from tests.training.tiny import write_brats_dataset
from tests.training.tiny_runs import SEGMAMBA, one_thread, stop_after
from training.commands.export import export
from training.commands.train import RECIPES, train
from training.faults import NotNowError
from training.recipes import RECIPES as KNOWN
from training.request import remembered


def call(command: Any, *arguments: str, status: int = 0) -> str:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


def refused(*arguments: str) -> OptionError:
    with pytest.raises(OptionError) as caught:
        call(train, *arguments)
    return caught.value


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, and a run ``first`` in ``results`` that the command made."""
    one_thread()
    folder = tmp_path_factory.mktemp("place")
    write_brats_dataset(folder / "data", cases=2, shape=(34, 32, 32))
    settings = [f"--set={name}={json.dumps(value)}" for name, value in SEGMAMBA.items()]
    where = ("--out", str(folder / "results"), "--name", "first", "--workers", "0")
    machine = ("--device", "cpu", "--precision", "float32", "--val", "1")
    data = ("--data", str(folder / "data"), "--steps", "1")
    said = call(train, "small-segmamba", *data, *where, *machine, *settings)
    (folder / "said.txt").write_text(said)
    return folder


def test_a_command_makes_a_run_and_says_where_things_are(place: Path) -> None:
    said, run = (place / "said.txt").read_text(), place / "results" / "first"
    assert "first: small-segmamba" in said
    assert "1 steps in" in said
    for name in ("bundle/card.json", "report.html", "checkpoints/best.pt"):
        assert (run / name).is_file(), name
    assert str(run / "report.html") in said
    split = json.loads((run / "split.json").read_text())
    assert split == {"training": ["tiny_000"], "validation": ["tiny_001"]}


def test_a_run_goes_on_without_a_second_word_about_its_data(place: Path) -> None:
    where = ("--out", str(place / "results"), "--name", "first", "--workers", "0")
    said = call(train, *where, "--resume", "--set", "epoch_steps=1", "--epochs", "2")
    assert "continuing after step 1" in said
    config = json.loads((place / "results" / "first" / "config.json").read_text())
    assert config["steps"] == 2
    known = remembered(place / "results", "first")
    assert known["data"] == place / "data"


@pytest.mark.parametrize("folds", [(), ("--fold", "all", "--folds", "2")], ids=["one", "folds"])
def test_a_run_that_is_stopped_is_not_taken_for_done(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folds: tuple[str, ...]
) -> None:
    settings = [f"--set={name}={json.dumps(value)}" for name, value in SEGMAMBA.items()]
    where = ("--out", str(tmp_path), "--name", "one", "--workers", "0", "--device", "cpu")
    data = ("--data", str(place / "data"), "--steps", "2", "--precision", "float32")
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        said = call(train, "small-segmamba", *data, *where, *settings, *folds, status=75)
    assert "continue with --resume" in said
    call(train, *where, "--resume", *folds)


def test_export_writes_a_bundle_of_a_run(place: Path, tmp_path: Path) -> None:
    run = str(place / "results" / "first")
    data = ("--data", str(place / "data"), "--device", "cpu")
    said = call(export, run, "--to", str(tmp_path / "Small model"), "--version", "2", *data)
    card = load_bundle(tmp_path / "Small model").card
    assert (card.name, card.version) == ("small-model", "2")
    metrics: Any = card.metrics
    (case,) = metrics["evaluation"]["cases"]
    assert f"case 1 · WT {case['regions']['WT']['dice']:.3f}" in said


def test_export_takes_found_corrections_from_their_file(place: Path, tmp_path: Path) -> None:
    steps = [{"name": "fill_holes", "params": {"region": "WT"}}]
    content = {"format": "segmamba-corrections/1", "steps": steps, "evidence": {"cases": 5}}
    (tmp_path / "corrections.json").write_text(json.dumps(content))
    setting = f"postprocess=@{tmp_path / 'corrections.json'}"
    run = str(place / "results" / "first")
    call(export, run, "--to", str(tmp_path / "tidy"), "--set", setting)
    card = load_bundle(tmp_path / "tidy").card
    assert [step.name for step in card.postprocess] == ["fill_holes"]
    assert card.metrics["corrections"] == {"cases": 5}


def test_export_refuses_a_folder_that_is_no_run_and_a_target_that_is_taken(
    place: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="a run in the results folder"):
        call(export, str(tmp_path), "--to", str(tmp_path / "b"))
    with pytest.raises(CheckpointError, match="exists already"):
        call(export, str(place / "results" / "first"), "--to", str(tmp_path))


def test_without_arguments_it_says_what_to_do() -> None:
    message = str(refused())
    for recipe in KNOWN:
        assert recipe in message
    assert "segmamba train small-segmamba --data FOLDER" in message
    assert "--data FOLDER" in str(refused("small-segmamba"))


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        (["huge", "--data", "."], "recipe"),
        (["small-segmamba", "--data", ".", "--set", "batch"], "set"),
        (["small-segmamba", "--data", ".", "--steps", "5", "--epochs", "1"], "epochs"),
        (["small-segmamba", "--data", ".", "--fold", "last"], "fold"),
        (["small-segmamba", "--data", ".", "--fold", "0", "--val", "a"], "val"),
        (["--resume", "--name", "no-such-run"], "name"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], argument: str) -> None:
    assert refused(*arguments).argument == argument


def test_a_setting_of_the_wrong_type_is_named_before_anything_is_made(
    place: Path, tmp_path: Path
) -> None:
    data, out = ("--data", str(place / "data")), ("--out", str(tmp_path / "r"))
    assert refused("small-segmamba", *data, *out, "--set", "batch=none").argument == "batch"
    taken = ("--export", str(tmp_path))
    assert refused("small-segmamba", *data, *out, *taken).argument == "export"
    with pytest.raises(OptionError, match="case or its unique ending"):
        call(train, "small-segmamba", *data, *out, "--val", "nobody")
    with pytest.raises(StudyError):
        call(train, "small-segmamba", "--data", str(tmp_path), *out)
    assert not (tmp_path / "r").exists()


def test_another_recipe_than_the_runs_is_refused(place: Path) -> None:
    where = ("--out", str(place / "results"), "--name", "first", "--resume")
    assert "small-segmamba" in str(refused("paper-segmamba", *where))


def test_help_lists_every_recipe_with_its_line_and_examples() -> None:
    assert RECIPES.keys() == KNOWN.keys()
    result = CliRunner().invoke(_App(train), ["--help"], env={"COLUMNS": "200"})
    for name, line in RECIPES.items():
        assert name in result.output
        assert line in result.output
    assert "segmamba train --name first --resume" in result.output


def test_help_of_train_and_export_needs_no_torch() -> None:
    code = (
        "import sys, training.commands.train, training.commands.export; "
        "sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_two_processes_cross_validate_together(tmp_path: Path) -> None:
    """The second process is started by the first, follows it through both folds, and ends."""
    from tests.training.tiny import write_png_dataset
    from tests.training.tiny_runs import LIGHTM

    data = write_png_dataset(tmp_path, cases=4, size=32)
    settings = {**LIGHTM, "patch": [1, 32, 32], "batch": 2, "steps": 1}
    command = [sys.executable, "-m", "training.commands.train", "lightm-unet-2d"]
    command += ["--data", str(data), "--out", str(tmp_path / "results"), "--name", "xv"]
    command += ["--fold", "all", "--folds", "2", "--device", "cpu", "--devices", "2"]
    command += ["--workers", "0", "--threads", "1"]
    command += [f"--set={name}={json.dumps(value)}" for name, value in settings.items()]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((tmp_path / "results" / "xv" / "cross_validation.json").read_text())
    assert [case["fold"] for case in summary["cases"]] == [0, 0, 1, 1]
    assert done.stdout.count("out-of-fold Dice") == 1, "only the first process speaks"


@pytest.mark.parametrize(
    "fault",
    [
        OSError(28, "No space left on device", "runs"),
        BackendError("The scan backend 'triton' cannot run on cuda."),
        NumericalError("Training stopped at step 3"),
        NotNowError("device", expected="one of 0", got="'cuda'", way_out="Wait."),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_fault_that_may_pass_is_one_line_and_has_a_status_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: Exception
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise fault

    monkeypatch.delenv("SEGMAMBA_DEBUG", raising=False)
    monkeypatch.setattr("training.data.find.resolve_dataset", fails)
    words = ("small-segmamba", "--data", str(tmp_path), "--out", str(tmp_path / "results"))
    said = call(train, *words, status=74)
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_a_device_that_is_not_here_is_no_wrong_usage(place: Path, tmp_path: Path) -> None:
    where = ("--data", str(place / "data"), "--out", str(tmp_path / "results"))
    said = call(train, "small-segmamba", *where, "--device", "cuda:99", "--val", "1", status=74)
    assert "expected one of the" in said


def test_it_runs_as_a_module_and_errors_are_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "training.commands.train"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: RECIPE: expected one of small-segmamba")


class _App(typer.Typer):
    """A command as `segmamba` wraps it, epilog and all, for the test runner."""

    def __init__(self, command: Any) -> None:
        super().__init__()
        self.command("train", epilog=_as_command("train", command).epilog)(command)
