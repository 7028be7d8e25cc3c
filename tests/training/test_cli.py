"""A whole run from the command line: folder in, bundle out, and the ways to go wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from model_core.checkpoints import load_bundle
from model_core.errors import OptionError
from model_core.imaging import Volume, write_nifti
from model_core.types import CONTRASTS
from training.checkpoint import load_checkpoint
from training.cli import train
from training.run_folder import RunFolder

SMALL = {
    "network_args": {
        "in_channels": 4,
        "out_channels": 3,
        "depths": [1, 0, 0, 0],
        "features": [4, 4, 4, 4],
        "hidden": 4,
    },
    "patch": [32, 32, 32],
    "batch": 1,
    "overlap": 0,
    "validation_overlap": 0,
}


def write_study(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    truth = np.zeros((34, 34, 34), np.uint8)
    truth[8:24, 8:24, 8:24] = 2
    truth[12:18, 12:18, 12:18] = 4
    truth[14:16, 14:16, 14:16] = 1
    for contrast in CONTRASTS:
        image = np.zeros(truth.shape, np.float32)
        image[1:-1, 1:-1, 1:-1] = rng.uniform(100, 200, (32, 32, 32))
        image[truth > 0] += 100
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        write_nifti(folder / f"{folder.name}_{contrast}.nii.gz", Volume(image, affine))
    write_nifti(folder / f"{folder.name}_seg.nii.gz", Volume(truth, affine))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for number in (1, 2):
        write_study(folder / f"patient{number}", number)
    return folder


def call(*arguments: str) -> str:
    result = CliRunner().invoke(train, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def start(data: Path, out: Path, *more: str) -> str:
    settings = [f"--set={name}={json.dumps(value)}" for name, value in SMALL.items()]
    common = ("--data", str(data), "--out", str(out), "--name", "My run", "--workers", "0")
    return call(*common, "--device", "cpu", "--val", "2", *settings, *more)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    out = tmp_path_factory.mktemp("results")
    said = start(data, out, "--steps", "3")
    return RunFolder(out / "My run"), said


def test_a_run_leaves_everything_that_is_promised(finished: tuple[RunFolder, str]) -> None:
    folder, said = finished
    for path in (folder.config, folder.split, folder.log, folder.metrics, folder.last, folder.best):
        assert path.stat().st_size > 0, path.name
    assert folder.curves.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "3 steps in" in said
    assert "bundle written" in said


def test_the_bundle_is_the_best_average_and_its_card_tells_where_from(
    finished: tuple[RunFolder, str],
) -> None:
    folder, _ = finished
    bundle = load_bundle(folder.path / "bundle")
    best = load_checkpoint(folder.best)
    for name, value in bundle.network.state_dict().items():
        assert torch.equal(value, best["weights"][name]), name
    card = bundle.card
    assert (card.name, card.heads, card.window) == ("my-run", "regions", (32, 32, 32))
    assert card.training.data == "1 labelled studies"
    assert card.training.model_extra is not None
    assert card.training.model_extra["config"] == json.loads(folder.config.read_text())
    assert card.training.model_extra["step"] == best["step"]


def test_the_printed_dice_is_the_final_metrics_and_the_cards(
    finished: tuple[RunFolder, str],
) -> None:
    folder, said = finished
    (case,) = json.loads(folder.final_metrics.read_text())["cases"]
    dice = {region: scores["dice"] for region, scores in case["regions"].items()}
    line = " · ".join(f"{region} {value:.3f}" for region, value in dice.items())
    assert f"case 1 · {line}" in said
    card = load_bundle(folder.path / "bundle").card
    assert card.metrics["evaluation"]["cases"] == [case]  # type: ignore[index,call-overload]
    on_the_way = folder.records("validation")[-1]["cases"]["case 1"]
    # prepared cases are kept in float16: a voxel at a boundary may fall on the other side
    assert on_the_way == pytest.approx(dice, abs=2e-3)


def test_no_name_of_a_case_leaves_the_run(finished: tuple[RunFolder, str]) -> None:
    folder, said = finished
    card = (folder.path / "bundle" / "card.json").read_text()
    for text in (said, card, folder.log.read_text(), folder.metrics.read_text()):
        assert "patient" not in text.replace("patients", "")
    assert json.loads(folder.split.read_text()) == {
        "training": ["patient1"],
        "validation": ["patient2"],
    }


def test_a_second_run_of_that_name_is_refused(data: Path, finished: tuple[RunFolder, str]) -> None:
    with pytest.raises(OptionError, match="--resume"):
        start(data, finished[0].path.parent, "--steps", "3")


def test_a_run_is_continued_to_more_steps(data: Path, tmp_path: Path) -> None:
    start(data, tmp_path, "--steps", "1")
    arguments = ("--data", str(data), "--out", str(tmp_path), "--name", "My run", "--resume")
    said = call(*arguments, "--workers", "0", "--steps", "2")
    assert "continuing after step 1" in said
    folder = RunFolder(tmp_path / "My run")
    assert load_checkpoint(folder.last)["step"] == 2
    assert json.loads(folder.config.read_text())["steps"] == 2


def test_export_writes_a_bundle_of_a_run(finished: tuple[RunFolder, str], tmp_path: Path) -> None:
    folder, _ = finished
    target = tmp_path / "small-model"
    call("export", str(folder.path), "--to", str(target), "--version", "2")
    card = load_bundle(target).card
    assert (card.name, card.version) == ("small-model", "2")


def test_an_export_is_judged_by_the_pipeline_that_its_card_describes(
    finished: tuple[RunFolder, str], data: Path, tmp_path: Path
) -> None:
    """With a correction that removes every tumour, the card's scores are those of an empty map."""
    folder, _ = finished
    remove_all = {"name": "remove_small_components", "params": {"region": "WT", "min_mm3": 1e9}}
    before = folder.final_metrics.read_text()
    arguments = ("--set", f"postprocess={json.dumps([remove_all])}", "--data", str(data))
    call("export", str(folder.path), "--to", str(tmp_path / "empty"), *arguments)
    card = load_bundle(tmp_path / "empty").card
    assert [step.name for step in card.postprocess] == ["remove_small_components"]
    (case,) = card.metrics["evaluation"]["cases"]  # type: ignore[index,call-overload]
    assert {scores["dice"] for scores in case["regions"].values()} == {0.0}
    folder.final_metrics.write_text(before)  # other tests share the run


def test_half_precision_rounds_the_stored_weights_and_loads_as_float32(
    finished: tuple[RunFolder, str], tmp_path: Path
) -> None:
    folder, _ = finished
    call("export", str(folder.path), "--to", str(tmp_path / "half"), "--half")
    best = load_checkpoint(folder.best)["weights"]
    for name, value in load_bundle(tmp_path / "half").network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, best[name].half().float()), name


def test_an_export_cannot_change_what_decided_the_weights(
    finished: tuple[RunFolder, str], tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="window, overlap, postprocess"):
        call("export", str(finished[0].path), "--to", str(tmp_path / "b"), "--set", "batch=7")


def test_a_taken_export_folder_is_refused_before_any_training(data: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not exist yet"):
        start(data, tmp_path / "results", "--export", str(tmp_path))
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        (["--out", "x"], "data"),
        (["--data", "d", "--set", "batch"], "set"),
        (["--data", "d", "--set", "batch=none"], "batch"),
        (["--data", "d", "--recipe", "huge"], "recipe"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], argument: str) -> None:
    with pytest.raises(OptionError) as caught:
        call(*arguments)
    assert caught.value.argument == argument


def test_help_lists_the_export_command() -> None:
    assert isinstance(train, typer.Typer)
    assert "export" in call("--help")
