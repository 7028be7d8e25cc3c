"""``segmamba predict`` and ``segmamba tta`` as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from model_core.errors import OptionError
from tests.training.judge.small_models import build_nearest_mean, png_run
from tests.training.tiny import write_png_dataset
from training.commands.predict import predict
from training.commands.tta import tta

Run = Callable[..., Result]


def caller(command: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("training.judge.loading.build_network", build_nearest_mean)
    monkeypatch.setattr("training.commands.judge_options.prepare_process", lambda threads: None)
    monkeypatch.setenv("COLUMNS", "140")
    torch.set_num_threads(1)
    app = typer.Typer()
    app.command()(command)
    return lambda *arguments: CliRunner().invoke(app, [str(item) for item in arguments])


@pytest.fixture
def run_predict(monkeypatch: pytest.MonkeyPatch) -> Run:
    return caller(predict, monkeypatch)


@pytest.fixture
def run_tta(monkeypatch: pytest.MonkeyPatch) -> Run:
    return caller(tta, monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A run with corrections in its folder: the smallest specks go."""
    run = png_run(tmp_path / "run", training=["png_001"])
    step = {"name": "remove_small_components", "params": {"region": "blob", "min_voxels": 30}}
    regions = [{"name": "blob", "labels": [1], "paints": 1}]
    found = {
        "format": "segmamba-corrections/1",
        "steps": [step],
        "task": {"labels": ["blob"], "regions": regions, "dims": 2},
        "values": {"0": 0, "1": 1},
    }
    (run / "corrections.json").write_text(json.dumps(found))
    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_png_dataset(tmp_path, cases=3)


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


class TestPredict:
    def test_one_command_predicts_corrects_scores_and_draws(
        self, run_predict: Run, model: Path, data: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        result = run_predict(model, data, "--out", out, "--cases", "labelled", "--pictures", 2)
        assert result.exit_code == 0, result.output
        files = ["png_000.png", "png_001.png", "png_002.png"]
        assert listed(out) == ["pictures", "postprocessed", "raw", "summary.json"]
        assert listed(out / "raw") == listed(out / "postprocessed") == files
        assert listed(out / "pictures") == files[:2]
        summary = json.loads((out / "summary.json").read_text())
        assert summary["settings"]["tta"] == "fast"
        assert summary["settings"]["passes"] == 3
        assert [case["case"] for case in summary["cases"]] == ["png_000", "png_001", "png_002"]
        assert set(summary["scores"]) == {"raw", "postprocessed"}
        assert "3 of 3 cases done" in result.stdout
        assert "blob pixels" in result.stdout
        assert "volumes_ml" not in summary["cases"][0]
        assert "1 of the scored cases trained this model" in " ".join(result.stderr.split())

    def test_the_switches_turn_each_part_off(
        self, run_predict: Run, model: Path, data: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        result = run_predict(
            model, data, "-o", out, "--tta", "none", "--postprocess", "none", "--pictures", 0
        )
        assert result.exit_code == 0, result.output
        assert listed(out) == ["raw", "summary.json"]
        assert listed(out / "raw") == ["png_003.png", "png_004.png"]
        assert json.loads((out / "summary.json").read_text())["settings"]["passes"] == 1

    def test_corrections_may_come_from_a_file(
        self, run_predict: Run, model: Path, data: Path, tmp_path: Path
    ) -> None:
        moved = (model / "corrections.json").rename(tmp_path / "mine.json")
        out = tmp_path / "out"
        run_predict(model, data, "-o", out, "--pictures", 0)
        assert not (out / "postprocessed").exists()
        result = run_predict(model, data, "-o", out, "--pictures", 0, "--postprocess", moved)
        assert listed(out / "postprocessed") == ["png_003.png", "png_004.png"]
        assert "2 of them kept from before" in result.stdout

    def test_a_case_that_fails_is_named_and_the_exit_code_says_so(
        self, run_predict: Run, model: Path, data: Path, tmp_path: Path
    ) -> None:
        (data / "imagesTs" / "png_003_0000.png").write_bytes(b"no picture")
        result = run_predict(model, data, "-o", tmp_path / "out", "--pictures", 0)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: png_003: XRay: expected a readable picture")
        assert "1 of 2 cases done" in result.stdout
        assert listed(tmp_path / "out" / "raw") == ["png_004.png"]

    def test_a_model_that_is_none_is_told_before_anything_is_made(
        self, run_predict: Run, data: Path, tmp_path: Path
    ) -> None:
        result = run_predict(tmp_path / "no-run", data, "-o", tmp_path / "out")
        assert isinstance(result.exception, OptionError)
        assert not (tmp_path / "out").exists()


class TestTta:
    def test_modes_stand_side_by_side_with_gain_and_cost(
        self, run_tta: Run, model: Path, data: Path, tmp_path: Path
    ) -> None:
        report = tmp_path / "tta.json"
        result = run_tta(model, data, "--modes", "none,full", "--json", report)
        assert result.exit_code == 0, result.output
        rows = {row[0]: row for line in result.stdout.splitlines() if (row := line.split())}
        assert rows["none"][1] == "1"
        assert rows["full"][1] == "4"
        assert rows["none"][4] == "+0.0000"
        assert "2 cases that did not train the model" in " ".join(result.stdout.split())
        content = json.loads(report.read_text())
        assert [case["case"] for case in content["cases"]] == ["case 1", "case 2"]
        assert content["modes"]["full"]["mean_dice"] == pytest.approx(
            float(rows["full"][3]), abs=1e-3
        )

    def test_an_unknown_mode_is_refused(self, run_tta: Run, model: Path, data: Path) -> None:
        result = run_tta(model, data, "--modes", "none,most")
        assert isinstance(result.exception, OptionError)


def test_help_teaches_without_torch() -> None:
    code = (
        "import sys, typer\n"
        "from training.commands.predict import predict\n"
        "from training.commands.tta import tta\n"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_names_the_outputs(run_predict: Run) -> None:
    text = " ".join(run_predict("--help").output.split())
    for word in ("OUT/raw", "OUT/postprocessed", "OUT/pictures", "OUT/summary.json", "--fold"):
        assert word in text
