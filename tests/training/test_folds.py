"""Cross-validation: every case is judged once, by the network that did not see it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from model_core.errors import OptionError
from tests.training.tiny import write_png_dataset
from tests.training.tiny_runs import LIGHTM, ask, one_thread, stop_after
from training.folds import resume_folds, run_folds
from training.job import is_finished
from training.recipes import lightm_unet_2d
from training.request import RunRequest, remembered
from training.runs.run_folder import RunFolder

SETTINGS = {**LIGHTM, "patch": [1, 32, 32], "steps": 1}


@pytest.fixture(scope="module")
def request_of_all(tmp_path_factory: pytest.TempPathFactory) -> RunRequest:
    one_thread()
    data = write_png_dataset(tmp_path_factory.mktemp("pictures"), cases=4, size=32)
    return ask(data, tmp_path_factory.mktemp("results"), "xv", fold="all", folds=2)


@pytest.fixture(scope="module")
def folds(request_of_all: RunRequest) -> tuple[list[RunFolder], str, bytes]:
    """Both folds, the second of which was stopped in its only step and then continued.

    With what was said, and the first fold's last checkpoint from before the second one began.
    """
    console = Console(record=True, width=400, force_terminal=False)
    with pytest.MonkeyPatch.context() as patch:
        _stop_in_fold_1(patch)
        begun = run_folds(lightm_unet_2d(), request_of_all, console, settings=SETTINGS)
    assert [is_finished(fold) for fold in begun] == [True, False]
    assert not (request_of_all.root / "cross_validation.json").exists()
    first = begun[0].last.read_bytes()
    return resume_folds({}, request_of_all, console), console.export_text(), first


def _stop_in_fold_1(patch: pytest.MonkeyPatch) -> None:
    import training.run

    real = training.run.start

    def start(configured: Any, dataset: Any, request: RunRequest, console: Any) -> bool:
        if request.fold == 1:
            stop_after(patch, 1)
        return real(configured, dataset, request, console)

    patch.setattr(training.run, "start", start)


def test_every_case_validates_once_and_never_where_it_trained(
    folds: tuple[list[RunFolder], str, bytes],
) -> None:
    splits = [json.loads(fold.split.read_text()) for fold in folds[0]]
    judged = [name for split in splits for name in split["validation"]]
    assert sorted(judged) == [f"png_{number:03d}" for number in range(4)]
    for split in splits:
        assert not set(split["training"]) & set(split["validation"])
        assert len(split["training"]) + len(split["validation"]) == 4


def test_each_case_has_its_out_of_fold_prediction(
    folds: tuple[list[RunFolder], str, bytes],
) -> None:
    for fold in folds[0]:
        kept = {path.stem for path in (fold.predictions / "raw").iterdir()}
        assert kept == set(json.loads(fold.split.read_text())["validation"])


def test_a_finished_fold_is_not_trained_again(folds: tuple[list[RunFolder], str, bytes]) -> None:
    done, said, first = folds
    assert done[0].last.read_bytes() == first
    assert "xv/fold_0 is finished" in said
    assert is_finished(done[1])


def test_the_summary_is_the_mean_over_all_cases(
    folds: tuple[list[RunFolder], str, bytes], request_of_all: RunRequest
) -> None:
    summary = json.loads((request_of_all.root / "cross_validation.json").read_text())
    each = [
        case["regions"]["blob"]["dice"]
        for fold in folds[0]
        for case in json.loads(fold.final_metrics.read_text())["cases"]
    ]
    assert len(each) == 4
    assert summary["dice"]["blob"]["mean"] == pytest.approx(statistics.fmean(each))
    assert summary["dice"]["blob"]["sd"] == pytest.approx(statistics.stdev(each))
    assert sorted(case["fold"] for case in summary["cases"]) == [0, 0, 1, 1]


def test_the_folds_share_one_cache_and_one_config(
    folds: tuple[list[RunFolder], str, bytes], request_of_all: RunRequest
) -> None:
    first, second = (json.loads(fold.config.read_text()) for fold in folds[0])
    assert first == second
    prepared = {path.parent.name for path in (request_of_all.root / "cache").rglob("case.json")}
    assert prepared == {f"png_{number:03d}" for number in range(4)}


def test_the_whole_is_remembered_as_a_whole(
    folds: tuple[list[RunFolder], str, bytes], request_of_all: RunRequest
) -> None:
    """``--name xv --resume`` alone continues all folds, not the last one that ran."""
    assert folds
    known = remembered(request_of_all.results, "xv")
    assert (known["fold"], known["folds"]) == ("all", 2)
    assert known["data"] == request_of_all.data


def test_a_second_cross_validation_of_that_name_is_refused(
    folds: tuple[list[RunFolder], str, bytes], request_of_all: RunRequest
) -> None:
    assert folds
    with pytest.raises(OptionError, match="--resume"):
        run_folds(lightm_unet_2d(), request_of_all, settings=SETTINGS)


def test_another_number_of_folds_is_refused_when_continuing(
    folds: tuple[list[RunFolder], str, bytes], request_of_all: RunRequest, tmp_path: Path
) -> None:
    """A case would else judge a network that it trained."""
    assert folds
    more = ask(request_of_all.data, request_of_all.results, "xv", fold="all", folds=3)
    with pytest.raises(OptionError, match="split differently"):
        resume_folds({}, more)
    with pytest.raises(OptionError, match="without --resume"):
        resume_folds({}, ask(request_of_all.data, tmp_path, "none", fold="all", folds=2))


def test_more_folds_than_cases_are_refused_at_once(request_of_all: RunRequest) -> None:
    many = ask(request_of_all.data, request_of_all.results, "many", fold="all", folds=9)
    with pytest.raises(OptionError, match="fold"):
        run_folds(lightm_unet_2d(), many, settings=SETTINGS)
    assert not many.root.exists()
