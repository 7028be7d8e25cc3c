"""The options under "How to run": each reaches what it names, from the option or its variable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from model_core.cli.engine import Engine, make_segmenter
from model_core.inference import segmenter as segmenter_module

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the segmenter was made with; no study is segmented."""
    seen: dict[str, Any] = {}

    class Recorder:
        def __init__(self, bundle: object, **arguments: object) -> None:
            seen.update(arguments)
            raise KeyboardInterrupt  # far enough

    monkeypatch.setattr(segmenter_module, "Segmenter", Recorder)
    return seen


def test_options_reach_the_segmenter(
    segmamba: Run, study_folder: Path, tmp_path: Path, asked: dict[str, Any]
) -> None:
    segmamba(
        "segment", study_folder, "-m", "tiny", "-o", tmp_path / "s.nii.gz", "--device", "cpu",
        "--backend", "torch", "--precision", "bfloat16", "--memory-limit", "1234",
    )  # fmt: skip
    assert asked == {
        "device": "cpu", "backend": "torch", "precision": "bfloat16", "memory_limit_mb": 1234,
    }  # fmt: skip


@pytest.mark.parametrize("command", ["demo", "segment"])
def test_variables_stand_in_for_options_and_options_win(
    segmamba: Run,
    study_folder: Path,
    tmp_path: Path,
    asked: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.setenv("SEGMAMBA_PRECISION", "bfloat16")
    monkeypatch.setenv("SEGMAMBA_MEMORY_LIMIT_MB", "777")
    studies = [study_folder] if command == "segment" else []
    arguments = [command, *studies, "-m", "tiny", "-o", tmp_path / "out.nii.gz"]
    segmamba(*arguments)
    assert (asked["precision"], asked["memory_limit_mb"]) == ("bfloat16", 777)
    segmamba(*arguments, "--precision", "float32", "--memory-limit", "555")
    assert (asked["precision"], asked["memory_limit_mb"]) == ("float32", 555)


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("by", ["option", "variable"])
def test_threads_are_set_for_the_process(
    segmamba: Run, study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    given = ["--threads", 3] if by == "option" else []
    if by == "variable":
        monkeypatch.setenv("SEGMAMBA_THREADS", "3")
    segmamba("segment", study_folder, "-m", "tiny", "-o", tmp_path / "s.nii.gz", *given)
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--precision", "float8"),
        ("--threads", "0"),
        ("--memory-limit", "-5"),
        ("--window", "half"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_name(
    segmamba: Run, study_folder: Path, tmp_path: Path, option: str, value: str
) -> None:
    out = tmp_path / "s.nii.gz"
    done = segmamba("segment", study_folder, "-m", "tiny", "-o", out, option, value)
    assert done.exit_code == 2
    assert option in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_precision_that_ran_is_shown_and_reported(
    segmamba: Run, study_folder: Path, tmp_path: Path, precision: str
) -> None:
    report = tmp_path / "r.json"
    done = segmamba(
        "segment", study_folder, "-m", "tiny", "-o", tmp_path / "s.nii.gz", "--report", report,
        "--precision", precision,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert f"convolutions in {precision}" in done.stdout
    assert json.loads(report.read_text())["precision"] == precision


@pytest.mark.usefixtures("segmamba")
def test_an_engine_of_defaults_takes_what_the_machine_is_made_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for fast, expected in ((True, "bfloat16"), (False, "float32")):
        features = {"avx2": True, "avx512_bf16": fast}
        monkeypatch.setattr("model_core.precision.cpu_features", lambda now=features: now)
        assert make_segmenter(Engine(model="tiny", device="cpu")).precision == expected
