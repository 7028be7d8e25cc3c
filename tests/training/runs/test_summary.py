"""A run in one line: how far, how good, in what state, whatever is missing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.training.runs.conftest import MakeRun
from training.runs.lock import held
from training.runs.run_folder import RunFolder, write_json
from training.runs.summary import (
    FoldSet,
    RunSummary,
    final_means,
    find_runs,
    read_run,
    spread,
)

HOUR = 3600.0


def only(folder: RunFolder) -> RunSummary:
    run = read_run(folder.path)
    assert isinstance(run, RunSummary)
    return run


def age(folder: RunFolder, hours: float) -> None:
    """Make every file of the run look as old as that."""
    then = time.time() - hours * HOUR
    for path in folder.path.rglob("*"):
        os.utime(path, (then, then))


def test_a_finished_run(make_run: MakeRun) -> None:
    folder = make_run(scores=(0.5, 0.8, 0.7))
    run = only(folder)
    assert (run.name, run.recipe, run.network) == ("first", "small-segmamba", "segmamba")
    assert (run.step, run.steps, run.state) == (100, 100, "finished")
    assert (run.best, run.best_step) == (0.8, 66)
    assert run.regions == pytest.approx({"WT": 0.9, "TC": 0.8, "ET": 0.7})
    assert run.hours == 1.0
    assert run.age_seconds < HOUR
    assert json.loads(json.dumps(run.to_json()))["best"] == 0.8


class TestState:
    def test_a_held_run_is_running_even_after_an_end(self, make_run: MakeRun) -> None:
        folder = make_run(ended="stopped")
        with held(folder.lock):
            assert only(folder).state == "running"
        assert only(folder).state == "stopped"

    def test_killed_is_stopped_though_all_steps_are_done(self, make_run: MakeRun) -> None:
        folder = make_run(ended=None)
        with held(folder.lock):
            pass
        assert only(folder).state == "stopped", "its final evaluation is missing"
        folder.record("end", step=100, reason="finished")
        assert only(folder).state == "finished"

    def test_a_run_that_has_made_no_step(self, make_run: MakeRun) -> None:
        folder = make_run(scores=(), steps=1, ended=None)
        assert only(folder).state == "not started"

    def test_without_a_lock_silence_tells(self, make_run: MakeRun) -> None:
        folder = make_run(ended=None)
        write_json(folder.config, {"steps": 1000})
        folder.metrics.write_text('{"kind": "step", "step": 10, "progress": 0.01}\n')
        assert only(folder).state == "running"
        age(folder, hours=1)
        assert only(folder).state == "stopped"

    @pytest.mark.parametrize("line", ['"step": 1000', '"step": 10, "progress": 1.0'])
    def test_of_an_earlier_release_steps_or_time_are_used_up(
        self, make_run: MakeRun, line: str
    ) -> None:
        folder = make_run(ended=None)
        write_json(folder.config, {"steps": 1000})
        folder.metrics.write_text(f'{{"kind": "step", {line}}}\n')
        assert only(folder).state == "finished"

    def test_of_an_earlier_release_judged_after_its_last_step(self, make_run: MakeRun) -> None:
        folder = make_run(ended=None)
        write_json(folder.config, {"steps": 1000})
        folder.metrics.write_text('{"kind": "step", "step": 10, "progress": 0.01}\n')
        age(folder, hours=1)
        assert only(folder).state == "stopped"
        write_json(folder.final_metrics, {})
        assert only(folder).state == "finished"


def test_damaged_files_are_listed_and_harm_no_other(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("good")
    broken = make_run("broken")
    broken.config.write_text("{")
    (tmp_path / "results" / "no-run").mkdir()
    (tmp_path / "results" / "file").touch()
    states = {
        run.name: run.state
        for run in find_runs(tmp_path / "results")
        if isinstance(run, RunSummary)
    }
    assert states == {"good": "finished", "broken": "unreadable"}
    assert find_runs(tmp_path / "none") == ()


def test_the_latest_comes_first(make_run: MakeRun, tmp_path: Path) -> None:
    for name, hours in (("old", 5), ("new", 1), ("middle", 3)):
        age(make_run(name), hours)
    assert [run.name for run in find_runs(tmp_path / "results")] == ["new", "middle", "old"]


class TestFolds:
    def test_mean_and_sample_deviation_over_the_folds(
        self, make_run: MakeRun, tmp_path: Path
    ) -> None:
        for number, score in ((10, 0.9), (2, 0.7), (0, 0.8)):
            make_run(f"cv/fold_{number}", scores=(score,))
        (found,) = find_runs(tmp_path / "results")
        assert isinstance(found, FoldSet)
        assert [fold.name for fold in found.folds] == ["cv/fold_0", "cv/fold_2", "cv/fold_10"]
        assert found.scores["mean"] == (pytest.approx(0.8), pytest.approx(0.1))
        assert found.scores["WT"][0] == pytest.approx(0.9)

    def test_a_fold_without_an_evaluation_is_not_counted(
        self, make_run: MakeRun, tmp_path: Path
    ) -> None:
        make_run("cv/fold_0", scores=(0.5,))
        make_run("cv/fold_1", scores=())
        (found,) = find_runs(tmp_path / "results")
        assert isinstance(found, FoldSet)
        assert found.scores["mean"] == (0.5, None)

    def test_out_of_fold_scores_are_those_that_were_written(
        self, make_run: MakeRun, tmp_path: Path
    ) -> None:
        make_run("cv/fold_0")
        found = read_run(tmp_path / "results" / "cv")
        assert isinstance(found, FoldSet)
        assert found.out_of_fold == {}
        dice = {"WT": {"mean": 0.9, "sd": 0.05, "n": 12}}
        write_json(found.path / "cross_validation.json", {"dice": dice})
        assert found.out_of_fold == found.to_json()["out_of_fold"] == dice


def test_final_means_of_complete_and_of_partial_metrics() -> None:
    final = {"summary": {"WT": {"dice": {"mean": 0.9, "sd": None}, "hd95_mm": 3.5, "x": None}}}
    assert final_means(final) == {"WT": {"dice": 0.9, "hd95_mm": 3.5}}
    assert final_means(None) == final_means({"cases": []}) == {}


def test_one_value_has_no_spread() -> None:
    assert spread([0.5]) == (0.5, None)
    assert spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
