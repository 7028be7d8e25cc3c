"""``segmamba phantom``: five files, the truth in words, and no surprise for a full folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from model_core.cli import phantom as command
from model_core.errors import OptionError
from model_core.imaging.nifti import read_nifti
from model_core.phantom import make_phantom


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setitem(command.SHAPES, "small", (32, 32, 24))
    app = typer.Typer()
    app.command()(command.phantom)
    return app


def test_it_writes_the_study_and_prints_its_truth(app: typer.Typer, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "study"

    result = CliRunner().invoke(app, [str(folder), "--seed", "5", "--size", "small"])

    assert result.exit_code == 0, result.output
    expected = make_phantom(5, shape=(32, 32, 24))
    for name, millilitres in expected.truth_ml.items():
        row = next(line for line in result.output.splitlines() if line.split()[:1] == [name])
        assert row.split()[1] == f"{millilitres:.1f}"
    names = {path.name for path in folder.iterdir()}
    assert names == {f"Phantom_0005_{part}.nii.gz" for part in ("t1", "t1ce", "t2", "flair", "seg")}
    seg = read_nifti(folder / "Phantom_0005_seg.nii.gz", argument="seg").array
    assert np.array_equal(seg == 4, expected.labels.array == 3)


def test_a_folder_with_files_is_left_alone(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")

    result = CliRunner().invoke(app, [str(tmp_path), "--size", "small"])

    assert isinstance(result.exception, OptionError)
    assert "--overwrite" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_overwrite_adds_to_a_folder_with_files(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")

    result = CliRunner().invoke(app, [str(tmp_path), "--size", "small", "--overwrite"])

    assert result.exit_code == 0, result.output
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--size", "huge"]])
def test_impossible_options_are_usage_errors(
    app: typer.Typer, tmp_path: Path, arguments: list[str]
) -> None:
    assert CliRunner().invoke(app, [str(tmp_path / "x"), *arguments]).exit_code == 2
