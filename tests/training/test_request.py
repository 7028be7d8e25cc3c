"""What a run was asked for is kept beside it, for the user who continues it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model_core.errors import OptionError
from training.data.dataset import Dataset
from training.request import RunRequest, remembered
from training.task import BRATS


def test_a_fold_is_a_run_inside_the_named_one(tmp_path: Path) -> None:
    request = RunRequest(data=tmp_path, results=tmp_path, name="xv", fold="all")
    assert request.place == (tmp_path / "xv", "fold_all")
    one = request.of_fold(2)
    assert one.place == (tmp_path / "xv", "fold_2")
    assert one.title == "xv/fold_2"
    assert one.shared_cache == tmp_path / "xv" / "cache"
    plain = RunRequest(data=tmp_path, results=tmp_path, name="xv", cache=tmp_path / "c")
    assert plain.place == (tmp_path, "xv")
    assert plain.shared_cache == tmp_path / "c"


def test_what_was_kept_is_remembered_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = RunRequest(
        data=Path("data"), results=Path("results"), name="a", fold=1, folds=3, cache=Path("c")
    )
    request.keep()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.chdir(elsewhere)
    known = remembered(tmp_path / "results", "a")
    folders = {"data": tmp_path / "data", "cache": tmp_path / "c"}
    assert known == {**folders, "labels": "auto-declared", "fold": 1, "folds": 3}
    again = RunRequest(results=tmp_path / "results", name="a", **known)
    assert again.place == (tmp_path / "results" / "a", "fold_1")


def test_a_fold_of_a_whole_does_not_make_it_forget_the_others(tmp_path: Path) -> None:
    whole = RunRequest(data=tmp_path, results=tmp_path, name="xv", fold="all", folds=3)
    whole.keep()
    whole.of_fold(1).keep()
    assert remembered(tmp_path, "xv")["fold"] == "all"
    RunRequest(data=tmp_path, results=tmp_path, name="one", fold=1, folds=3).keep()
    assert remembered(tmp_path, "one")["fold"] == 1


def test_prepared_cases_go_where_nnunet_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset(
        name="Dataset801_Liver", layout="nnunet", task=BRATS, values={0: 0}, training=()
    )
    request = RunRequest(data=tmp_path, results=tmp_path, name="a")
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    assert request.at_home(dataset) == request
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "pre"))
    home = request.at_home(dataset).shared_cache
    assert home == tmp_path / "pre" / "Dataset801_Liver" / "segmamba"
    chosen = RunRequest(data=tmp_path, results=tmp_path, name="a", cache=tmp_path)
    assert chosen.at_home(dataset).shared_cache == tmp_path


def test_nothing_is_remembered_of_a_run_that_never_was(tmp_path: Path) -> None:
    assert remembered(tmp_path, "a") == {}


def test_a_bundle_that_exists_by_now_is_not_asked_for_again(tmp_path: Path) -> None:
    request = RunRequest(data=tmp_path, results=tmp_path, name="a", export=tmp_path / "bundle")
    request.keep()
    assert remembered(tmp_path, "a")["export"] == tmp_path / "bundle"
    (tmp_path / "bundle").mkdir()
    assert "export" not in remembered(tmp_path, "a")


def test_a_damaged_note_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "request.json").write_text("{")
    with pytest.raises(OptionError, match="--data"):
        remembered(tmp_path, "a")
