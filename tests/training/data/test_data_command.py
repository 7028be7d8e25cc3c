"""``segmamba data`` from the command line: what it prints, writes and returns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model_core.errors import OptionError
from tests.training.tiny import write_brats_dataset, write_nifti_dataset, write_png_dataset
from training.commands.data import data
from training.data.find import load_dataset
from training.data.plan import apply_plan, read_plan
from training.recipes import recipe


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(data, [str(word) for word in words], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_verify_returns_one_and_names_the_case(tmp_path: Path) -> None:
    root = write_png_dataset(tmp_path, cases=3, size=16)
    assert call("verify", root) == (
        0, "5 cases: 0 with errors, 0 warnings (Dataset002_TinyPng, nnunet)\n",
    )  # fmt: skip
    (root / "labelsTr" / "png_001.png").unlink()
    code, text = call("verify", root, "--json", tmp_path / "v.json", "--workers", 2)
    assert code == 1
    assert "png_001" in text
    assert "1 with errors" in text
    content = json.loads((tmp_path / "v.json").read_text())
    assert content["ok"] is False
    assert [(p["case"], p["kind"]) for p in content["problems"]] == [("png_001", "missing-label")]


def test_a_data_set_is_found_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png_dataset(tmp_path, cases=1, size=16)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert "Dataset002_TinyPng" in call("verify", "2")[1]


def test_fingerprint_plan_prepare_and_train_agree(tmp_path: Path) -> None:
    root = write_nifti_dataset(tmp_path, cases=2)
    code, text = call("fingerprint", root, "-o", tmp_path / "f.json")
    assert code == 0
    assert "24 × 32 × 32 voxels of 2.5 × 1 × 1 mm (SPL)" in text
    assert "rim" in text
    code, text = call(
        "plan", root, "--memory", 8, "--fingerprint", tmp_path / "f.json", "-o",
        tmp_path / "plan.json",
    )  # fmt: skip
    assert code == 0
    assert "the median of the data set" in text
    plan = read_plan(tmp_path / "plan.json")
    assert plan.patch == (32, 32, 32)
    assert '"value": [ 32, 32, 32 ]' in (tmp_path / "plan.json").read_text()
    code, text = call(
        "prepare", root, "--plan", tmp_path / "plan.json", "--cache", tmp_path / "cache"
    )
    assert code == 0
    assert text.startswith("2 cases prepared in")
    dataset = load_dataset(root)
    config = apply_plan(recipe("small-segmamba"), dataset, plan)
    from training.data.cases import cached_case

    assert cached_case("vol_001", dataset.name, config, tmp_path / "cache").present == (1, 2)


def test_prepare_goes_to_nnunets_folder_or_wants_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_brats_dataset(tmp_path / "brats", cases=1, shape=(20, 18, 16))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    with pytest.raises(OptionError, match="cache"):
        call("prepare", root)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "pre"))
    assert call("prepare", root)[0] == 0
    assert len(list((tmp_path / "pre" / "brats" / "segmamba").rglob("image.b2nd"))) == 1


def test_results_go_into_folders_that_exist(tmp_path: Path) -> None:
    root = write_png_dataset(tmp_path, cases=1, size=16)
    with pytest.raises(OptionError, match="existing folder"):
        call("fingerprint", root, "-o", tmp_path / "none" / "f.json")


@pytest.mark.parametrize("command", ["verify", "fingerprint", "plan", "prepare"])
def test_every_command_teaches_by_example(command: str) -> None:
    code, text = call(command, "--help")
    assert code == 0
    assert f"segmamba data {command}" in text
