"""A run's folder: made once, continued without a seam, worked on by one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from model_core.errors import OptionError
from tests.training.runs.conftest import MakeRun
from training.runs import run_folder as module
from training.runs.run_folder import RunFolder, read_json, write_json


def test_a_run_has_its_own_folders_and_a_name_is_taken_once(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    made = {path.name for path in folder.path.iterdir()}
    assert {"checkpoints", "logs", "plots", "metrics"} <= made
    with pytest.raises(OptionError, match="name of a run"):
        RunFolder.existing(tmp_path, "first")
    write_json(folder.config, {})
    assert RunFolder.existing(tmp_path, "first").path == folder.path
    with pytest.raises(OptionError, match="no other run has"):
        RunFolder.create(tmp_path, "first")


def test_a_line_torn_by_a_kill_is_mended_when_the_run_goes_on(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    folder.record("note", step=1)
    with folder.metrics.open("a") as file:
        file.write('{"kind": "no')
    again = RunFolder(folder.path)
    assert [line["step"] for line in again.records("note")] == [1]
    again.record("note", step=2)
    assert [line["step"] for line in again.records("note")] == [1, 2]
    assert folder.metrics.read_text().count("\n") == 2


def test_a_killed_writer_leaves_a_file_that_reads(tmp_path: Path) -> None:
    """A real SIGKILL, in the middle of appending."""
    RunFolder.create(tmp_path, "first")
    code = (
        "import sys; from pathlib import Path\n"
        "from training.runs.run_folder import RunFolder\n"
        "folder = RunFolder(Path(sys.argv[1])); step = 0\n"
        "while True:\n"
        "    step += 1\n"
        "    folder.record('note', step=step, text='x' * 5000)\n"
        "    if step == 3: print('going', flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "first")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    folder = RunFolder(tmp_path / "first")
    steps = [line["step"] for line in folder.records("note")]
    assert len(steps) >= 3
    folder.record("note", step=steps[-1] + 1)
    assert [line["step"] for line in folder.records("note")] == list(range(1, steps[-1] + 2))


def test_what_will_be_done_again_is_forgotten(make_run: MakeRun) -> None:
    folder = make_run(steps=100)
    for step in (33, 66, 100):
        (folder.plots / f"val_predictions_epoch_0001_step_{step:06d}.png").touch()
    folder.forget_after(66)
    assert [line["step"] for line in folder.records("step")] == [10, 20, 30, 40, 50, 60]
    assert [line["step"] for line in folder.records("validation")] == [33, 66]
    assert folder.records("end") == [], "a run that goes on has not ended"
    assert [path.name[-8:-4] for path in folder.validation_pictures()] == ["0033", "0066"]


def test_a_run_of_an_earlier_release_is_continued_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "note", "step": 1}\n')
    folder = RunFolder(tmp_path)
    folder.record("note", step=2)
    assert [line["step"] for line in folder.records("note")] == [1, 2]
    assert not folder.logs.exists()


def test_json_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    write_json(path, {"a": 1})

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff"])
def test_json_that_is_no_object_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    assert read_json(path) is None
    path.write_text(content, encoding="latin-1")
    assert read_json(path) is None


class TestAtWork:
    def test_one_at_a_time(self, make_run: MakeRun) -> None:
        folder = make_run()
        assert folder.is_at_work() is None
        with folder.at_work():
            assert folder.is_at_work() is True
            with pytest.raises(OptionError, match="being trained now"), folder.at_work():
                pass
        assert folder.is_at_work() is False

    def test_the_environment_is_noted_and_earlier_ones_kept(
        self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make_run()
        for written, python in (("Monday", "3.11"), ("Tuesday", "3.11"), ("Friday", "3.12")):
            now = {"written": written, "python": python}
            monkeypatch.setattr(module, "describe_environment", lambda now=now: dict(now))
            with folder.at_work():
                pass
        assert read_json(folder.environment) == {
            "written": "Friday",
            "python": "3.12",
            "earlier": [{"written": "Tuesday", "python": "3.11"}],
        }

    def test_curves_are_drawn_at_evaluations_and_at_the_end(self, make_run: MakeRun) -> None:
        folder = make_run(scores=())
        assert not folder.curves.exists()
        with folder.at_work():
            folder.record("validation", step=100, mean={"WT": 0.5})
            assert folder.curves.exists()
            folder.curves.unlink()
        assert folder.curves.exists()

    def test_a_picture_that_fails_ends_no_run(
        self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: object) -> None:
            raise ValueError("no font")

        monkeypatch.setattr("training.runs.plots.draw_curves", fail)
        said: list[str] = []
        with make_run().at_work(said.append):
            pass
        assert said == ["the training curves could not be drawn: no font"]
