"""``segmamba runs`` lists, shows and compares, for people and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from model_core.errors import OptionError
from tests.training.runs.conftest import MakeRun
from training.commands.runs import runs
from training.runs.run_folder import write_json

Invoke = Callable[..., str]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run the command on ``tmp_path/results``; its output, or the error it raised."""
    monkeypatch.setenv("COLUMNS", "120")
    app = typer.Typer()
    app.command()(runs)

    def call(*words: object) -> str:
        arguments = [*map(str, words), "--out", str(tmp_path / "results")]
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    return call


def test_a_list_names_every_run_with_its_folds_below(make_run: MakeRun, invoke: Invoke) -> None:
    make_run("first", ended="stopped")
    make_run("cv/fold_0", scores=(0.7,))
    make_run("cv/fold_1", scores=(0.9,))
    lines = [line.split() for line in invoke().splitlines() if line.strip()]
    rows = {words[0]: words[1:] for words in lines}
    assert rows["first"][:4] == ["small-segmamba", "(segmamba)", "100/100", "stopped"]
    assert rows["first"][4] == "0.800"
    assert rows["cv"][2:8] == ["2", "folds", "finished", "0.800", "±", "0.141"]
    assert rows["fold_1"][:3] == ["100/100", "finished", "0.900"]


def test_no_runs_is_no_error(invoke: Invoke) -> None:
    assert "No runs in" in invoke()


def test_one_run_with_its_cases_and_final_scores(make_run: MakeRun, invoke: Invoke) -> None:
    folder = make_run("first")
    summary = {"WT": {"dice": {"mean": 0.875}, "specificity": {"mean": 0.5}}}
    write_json(folder.final_metrics, {"cases": [], "summary": summary})
    words = invoke("first").split()
    assert words[words.index("0.800") : words.index("66") + 1] == ["0.800", "at", "step", "66"]
    assert words[words.index("1") - 1 :][:5] == ["case", "1", "0.900", "0.800", "0.700"]
    assert "0.875" in words
    assert "0.500" not in words
    assert invoke(folder.path) == invoke("first")


def test_a_set_of_folds_tells_its_out_of_fold_scores(
    make_run: MakeRun, invoke: Invoke, tmp_path: Path
) -> None:
    make_run("cv/fold_0", scores=(0.7,))
    dice = {"WT": {"mean": 0.9, "sd": 0.05, "n": 12}}
    write_json(tmp_path / "results" / "cv" / "cross_validation.json", {"dice": dice})
    assert "WT 0.900 ± 0.050 12" in " ".join(invoke("cv").split())
    assert "first" not in invoke("cv/fold_0")


def test_several_runs_are_compared(make_run: MakeRun, invoke: Invoke, tmp_path: Path) -> None:
    make_run("first", scores=(0.5,))
    make_run("second", scores=(0.75,), learning_rate=0.5)
    target = tmp_path / "curves.png"
    said = " ".join(invoke("first", "second", "--plot", target).split())
    assert "learning_rate 0.001 0.5" in said
    assert "best mean Dice 0.500 0.750" in said
    assert "patch" not in said
    assert target.read_bytes().startswith(b"\x89PNG")
    assert "settings are the same" in invoke("first", "first")


def test_json_has_the_same_numbers(make_run: MakeRun, invoke: Invoke) -> None:
    make_run("first", scores=(0.5,))
    make_run("second", scores=(0.75,), learning_rate=0.5)
    values: dict[str, Any] = json.loads(invoke("first", "second", "--json"))
    assert values["schema"] == "segmamba-runs/1"
    assert [run["best"] for run in values["runs"]] == [0.5, 0.75]
    assert values["differences"] == {"learning_rate": [0.001, 0.5]}
    listed = json.loads(invoke("--json"))
    assert {run["name"] for run in listed["runs"]} == {"first", "second"}
    assert "differences" not in listed


def test_a_report_to_pass_on(make_run: MakeRun, invoke: Invoke, tmp_path: Path) -> None:
    make_run("first")
    target = tmp_path / "shared.html"
    invoke("first", "--report", target)
    assert "left out of this copy" in target.read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "argument"),
    [
        (["nobody"], "run"),
        (["first", "first", "--report", "x.html"], "report"),
        (["cv", "--report", "x.html"], "report"),
        (["--report", "x.html"], "report"),
        (["first", "--plot", "no/such/folder.png"], "plot"),
    ],
)
def test_what_cannot_be_done_is_said(
    make_run: MakeRun, invoke: Invoke, words: list[str], argument: str
) -> None:
    make_run("first")
    make_run("cv/fold_0")
    make_run("cv/fold_1")
    with pytest.raises(OptionError) as caught:
        invoke(*words)
    assert caught.value.argument == argument


def test_a_damaged_run_is_named(make_run: MakeRun, invoke: Invoke) -> None:
    make_run("first").config.write_text("{")
    said = invoke()
    assert "unreadable" in said
    assert "config.json cannot be read in: first" in said


def test_help_needs_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, training.commands.runs, training.runs.summary, training.runs.compare, "
        "training.runs.report, training.runs.pictures\n"
        "sys.exit(bool({'torch', 'matplotlib', 'jinja2', 'tensorboard'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
