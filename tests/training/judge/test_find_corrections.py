"""The search: finds what helps on cases nobody trained on, and says honestly how much."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from model_core.errors import OptionError, StudyError
from model_core.metrics import dice, lesionwise
from model_core.postprocess import Step, apply_steps, parse_steps
from tests.training.tiny import write_brats_dataset, write_nifti_dataset, write_png_dataset
from training.commands.postprocess import postprocess
from training.data.dataset import Dataset
from training.data.find import load_dataset
from training.data.images import read_label_file, to_internal, write_labels
from training.judge.corrections import load_corrections
from training.judge.find_corrections import Finding, find_corrections
from training.judge.out_of_fold import gather
from training.judge.scoreboard import Objective, Scoreboard
from training.region_rules import rules_of
from training.task import BRATS, LabelArray, Task

MM = (1.0, 1.0, 1.0)
BLOB = Task(channels=("MRI",), labels=("blob",))
TWO = Task(channels=("MRI",), labels=("a", "b"))


def cube(at: tuple[int, int, int], size: int, value: int = 1) -> LabelArray:
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[tuple(slice(start, start + size) for start in at)] = value
    return labels


def lesion(value: int = 1) -> LabelArray:
    return cube((4, 4, 4), 8, value)


def island(size: int, value: int = 1) -> LabelArray:
    return cube((16, 16, 16), size, value)


def board_of(
    pairs: Sequence[tuple[LabelArray, LabelArray]],
    task: Task = BLOB,
    objective: Objective = "dice",
) -> Scoreboard:
    board = Scoreboard(task, objective)
    for number, (prediction, truth) in enumerate(pairs):
        board.add(f"case {number}", prediction, truth, MM)
    return board


def said(finding: Finding) -> list[dict[str, Any]]:
    return [step.model_dump() for step in finding.kept]


class TestScoreboard:
    @pytest.mark.parametrize("objective", ["dice", "lesion-dice"])
    def test_scores_are_those_of_whole_maps_corrected_step_by_step(
        self, objective: Objective
    ) -> None:
        rng = np.random.default_rng(1)
        maps = [rng.choice([0] * 12 + [1, 2, 3], (6, 11, 6)).astype(np.uint8) for _ in range(4)]
        pairs = [(maps[0], maps[1]), (maps[2], maps[3])]
        board = board_of(pairs, BRATS, objective)
        chain = parse_steps(
            [
                {"name": "remove_small_components", "params": {"region": "WT", "min_voxels": 4}},
                {"name": "keep_largest", "params": {"region": "TC"}},
                {"name": "relabel_small_et", "params": {"min_mm3": 30}},
            ]
        )
        for length in (3, 0, 1, 2):  # in any order
            for row, (prediction, truth) in zip(board.scores(chain[:length]), pairs, strict=True):
                labels, _ = apply_steps(prediction, MM, chain[:length])
                for score, region in zip(row, board.regions, strict=True):
                    mask, true = BRATS.mask(labels, region), BRATS.mask(truth, region)
                    whole = (
                        dice(mask, true) if objective == "dice" else lesionwise(mask, true, MM).dice
                    )
                    assert score == pytest.approx(whole, abs=1e-12)


class TestSearch:
    def test_false_islands_are_cut_off_below_true_lesions(self) -> None:
        truth = lesion() | cube((16, 4, 4), 4)  # a true satellite of 64 mm³
        finding = find_corrections(board_of([(truth | island(3), truth)] * 4))
        assert said(finding) == [
            {"name": "remove_small_components", "params": {"region": "blob", "min_mm3": 50.0}}
        ]
        assert finding.before.mean() < 1
        np.testing.assert_array_equal(finding.after, 1)
        assert finding.honest is not None
        np.testing.assert_array_equal(finding.honest, 1)
        assert finding.agreeing == 4

    def test_keep_largest_where_no_threshold_separates(self) -> None:
        """False islands of one case are larger than the only true lesion of another."""
        small, large = cube((2, 2, 2), 4), cube((2, 2, 2), 12)
        pairs = [(small, small), (large | island(7), large), (small | island(2), small)]
        (step,) = said(find_corrections(board_of([*pairs, *pairs])))
        assert step == {"name": "keep_largest", "params": {"region": "blob"}}

    def test_a_gain_that_one_case_alone_brings_is_not_kept(self) -> None:
        perfect = (lesion(), lesion())
        finding = find_corrections(board_of([(lesion() | island(3), lesion()), perfect, perfect]))
        assert finding.found
        assert finding.after.mean() > finding.before.mean()
        assert finding.honest is not None
        np.testing.assert_array_equal(finding.honest, finding.before)
        assert finding.kept == ()
        assert "not confirmed" in finding.verdict

    def test_no_region_may_fall_even_if_the_mean_rises(self) -> None:
        """An island of a is false, a smaller one of b is true: both are small foreground."""
        truth = lesion(1) | cube((16, 4, 4), 6, 2) | cube((4, 16, 4), 2, 2)
        predicted = truth | island(3, 1)
        finding = find_corrections(board_of([(predicted, truth)] * 4, TWO))
        assert [step["params"]["region"] for step in said(finding)] == ["a"]
        falls = [
            tried
            for trial in finding.trials
            for tried in trial.tried
            if np.mean(tried.means) > np.mean(trial.before) and tried.means[1] < trial.before[1]
        ]
        assert falls, "the case is made so that such a candidate exists"
        assert not any(tried.accepted for tried in falls)

    def test_little_enhancing_tumour_becomes_core_where_components_would_be_lost(self) -> None:
        """One tumour has a false focus of 27 mm³, the other a true one of 8 beside its ring."""
        core = cube((3, 3, 3), 14, 2) - cube((4, 4, 4), 12, 1)  # ED around NCR
        without, ring = core.copy(), core.copy()
        ring[5:9, 5:9, 5:9] = ring[11:13, 11:13, 11:13] = 3
        focus = core.copy()
        focus[5:8, 5:8, 5:8] = 3
        pairs = [(focus, without), (ring, ring)] * 2
        finding = find_corrections(board_of(pairs, BRATS))
        assert said(finding) == [{"name": "relabel_small_et", "params": {"min_mm3": 50.0}}]
        np.testing.assert_array_equal(finding.after, 1)

    def test_holes_of_pictures_are_filled(self) -> None:
        truth = np.zeros((1, 20, 20), np.uint8)
        truth[0, 3:16, 3:16] = 1
        predicted = truth.copy()
        predicted[0, 6:9, 6:9] = 0
        finding = find_corrections(board_of([(predicted, truth)] * 3))
        assert [step["name"] for step in said(finding)] == ["fill_holes"]
        np.testing.assert_array_equal(finding.after, 1)

    def test_lesion_dice_counts_islands_that_dice_hardly_sees(self) -> None:
        truth = cube((2, 2, 2), 14)
        pairs = [(truth | cube((20, 20, 20), 1), truth)] * 3
        assert find_corrections(board_of(pairs)).kept == ()
        finding = find_corrections(board_of(pairs, objective="lesion-dice"))
        assert [step["name"] for step in said(finding)] == ["remove_small_components"]
        assert finding.before.mean() == pytest.approx(0.5, abs=0.01)

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_too_few_cases_choose_nothing(self, count: int) -> None:
        finding = find_corrections(board_of([(lesion() | island(3), lesion())] * count))
        assert finding.kept == ()
        assert f"{count} cases are too few" in finding.verdict

    def test_perfect_predictions_need_nothing(self) -> None:
        finding = find_corrections(board_of([(lesion(), lesion())] * 3))
        assert (finding.kept, finding.honest) == ((), None)
        assert "no step raised the mean" in finding.verdict

    def test_the_left_out_scores_are_those_of_searches_without_the_case(self) -> None:
        """A plain repetition of the search is the truth that the kept tables must equal."""
        sizes = [2, 3, 4, 2]
        pairs = [(lesion() | island(size), lesion()) for size in sizes]
        finding = find_corrections(board_of(pairs))
        assert finding.honest is not None
        for index, pair in enumerate(pairs):
            others = board_of([*pairs[:index], *pairs[index + 1 :]])
            chain: tuple[Step, ...] = find_corrections(others).found
            labels, _ = apply_steps(pair[0], MM, chain, rules_of(BLOB))
            assert finding.honest[index, 0] == pytest.approx(dice(labels > 0, pair[1] > 0))
        assert finding.honest.mean() < finding.after.mean()  # the case with 64 mm³ stands alone


# ---------------------------------------------------------------- runs on disk

Write = Callable[..., Path]


def cross_validation(out: Path, dataset: Dataset, folds: int = 3) -> Path:
    """A fold set whose predictions are the truth with a false island of two voxels."""
    for fold in range(folds):
        raw = out / f"fold_{fold}" / "predictions" / "raw"
        raw.mkdir(parents=True)
        chosen = dataset.labelled[fold::folds]
        others = [case.name for case in dataset.labelled if case not in chosen]
        split = {"training": others, "validation": [case.name for case in chosen]}
        (raw.parents[1] / "split.json").write_text(json.dumps(split))
        for case in chosen:
            assert case.label is not None
            volume = read_label_file(case.label)
            labels = to_internal(volume.array, dataset)
            labels[0, 0, :2] = len(dataset.task.labels)
            ending = ".png" if case.label.suffix == ".png" else ".nii.gz"
            write_labels(raw / f"{case.name}{ending}", labels, volume, dataset)
    return out


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    """A data set and its cross-validation."""
    data = write_png_dataset(tmp_path, cases=6)
    return data, cross_validation(tmp_path / "cv", load_dataset(data))


def call(*arguments: object) -> Any:
    return CliRunner().invoke(postprocess, [str(argument) for argument in arguments])


class TestGathering:
    def test_each_case_comes_once_with_its_truth(self, pictures: tuple[Path, Path]) -> None:
        data, cv = pictures
        dataset = load_dataset(data)
        gathered = gather(cv, dataset)
        assert [case.name for case in gathered.cases] == [c.name for c in dataset.training]
        assert {case.truth.parent.name for case in gathered.cases} == {"labelsTr"}
        assert gathered.notes == ()
        assert len(gather(cv / "fold_1", dataset).cases) == 2  # one run is enough

    def test_a_prediction_of_a_training_case_is_refused(self, pictures: tuple[Path, Path]) -> None:
        data, cv = pictures
        raw = cv / "fold_1" / "predictions" / "raw"
        (raw / "png_000.png").write_bytes((raw / "png_001.png").read_bytes())
        with pytest.raises(OptionError, match=r"1 of its training cases .*\(png_000\)"):
            gather(cv, load_dataset(data))

    def test_a_case_of_two_folds_is_refused(self, pictures: tuple[Path, Path]) -> None:
        data, cv = pictures
        split = json.loads((cv / "fold_0" / "split.json").read_text())
        split["validation"].append("png_001")
        split["training"].remove("png_001")
        (cv / "fold_0" / "split.json").write_text(json.dumps(split))
        raw = cv / "fold_1" / "predictions" / "raw" / "png_001.png"
        (cv / "fold_0" / "predictions" / "raw" / "png_001.png").write_bytes(raw.read_bytes())
        with pytest.raises(OptionError, match="earlier fold predicted too"):
            gather(cv, load_dataset(data))

    def test_what_a_reader_should_know_is_noted(self, pictures: tuple[Path, Path]) -> None:
        data, cv = pictures
        for path in (cv / "fold_2" / "predictions" / "raw").iterdir():
            path.unlink()
        (cv / "fold_0" / "config.json").write_text('{"initial": "sha256:00"}')
        raw = cv / "fold_1" / "predictions" / "raw"
        (raw / "stranger.png").write_bytes((raw / "png_001.png").read_bytes())
        gathered = gather(cv, load_dataset(data))
        assert len(gathered.cases) == 4
        assert [
            next(word for word in ("began from", "outside its validation", "no predictions")
                 if word in note)
            for note in gathered.notes
        ] == ["began from", "outside its validation", "no predictions"]  # fmt: skip

    def test_another_data_set_or_no_run_is_refused(
        self, pictures: tuple[Path, Path], tmp_path: Path
    ) -> None:
        data, cv = pictures
        with pytest.raises(StudyError, match="the data set that the run was trained on"):
            gather(cv, load_dataset(write_brats_dataset(tmp_path / "b", cases=1)))
        with pytest.raises(OptionError, match=r"a run \(with split\.json\)"):
            gather(data, load_dataset(data))


class TestCommand:
    """``segmamba postprocess find``."""

    @pytest.mark.parametrize("write", [write_png_dataset, write_nifti_dataset, write_brats_dataset])
    def test_it_writes_corrections_and_reports(self, write: Write, tmp_path: Path) -> None:
        data = write(tmp_path / "data", cases=4)
        dataset = load_dataset(data)
        cv = cross_validation(tmp_path / "cv", dataset, folds=2)
        result = call("find", cv, "--data", data)
        assert result.exit_code == 0, result.output
        corrections = load_corrections(cv / "corrections.json")
        assert [step.name for step in corrections.steps] == ["remove_small_components"]
        assert corrections.labels == dataset.task.labels
        assert corrections.values == dataset.values
        evidence = corrections.evidence
        assert evidence["left_out"]["mean"] > evidence["before"]["mean"]
        report = json.loads((cv / "corrections_report.json").read_text())
        assert len(report["per_case"]) == 4
        assert report["per_case"][0]["after"] == dict.fromkeys(report["per_case"][0]["after"], 1.0)
        page = (cv / "corrections_report.html").read_text()
        assert "data:image/png;base64," in page
        for text in (page, json.dumps(report), json.dumps(corrections.to_json())):
            assert not any(case.name in text for case in dataset.labelled)

    def test_more_predictions_may_come_from_elsewhere(
        self, pictures: tuple[Path, Path], tmp_path: Path
    ) -> None:
        data, cv = pictures
        raw = cv / "fold_0" / "predictions" / "raw"
        alone = call(
            "find", "--data", data, "-o", tmp_path / "c.json", "--also", raw, data / "labelsTr"
        )
        assert "2 cases are too few" in alone.output
        assert load_corrections(tmp_path / "c.json").steps == ()
        trained = call("find", cv / "fold_1", "--data", data, "--also", raw, data / "labelsTr")
        assert isinstance(trained.exception, OptionError)
        assert "no fold of the run was trained on" in str(trained.exception)

    def test_a_file_that_does_not_fit_is_named(self, pictures: tuple[Path, Path]) -> None:
        data, cv = pictures
        Image.new("L", (9, 9)).save(cv / "fold_1" / "predictions" / "raw" / "png_001.png")
        result = call("find", cv, "--data", data)
        assert "png_001, label: expected the grid" in str(result.exception)
        assert not (cv / "corrections.json").exists()

    def test_nothing_is_read_where_the_result_cannot_be_written(
        self, pictures: tuple[Path, Path], tmp_path: Path
    ) -> None:
        data, cv = pictures
        result = call("find", cv, "--data", data, "-o", tmp_path / "none" / "c.json")
        assert isinstance(result.exception, OptionError)
        assert "existing folder" in str(result.exception)
