"""No case both trains and judges, and a run keeps its split."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_core.errors import OptionError
from training.split import find_split, restore_split


def add_cases(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for part in ("t1", "t1ce", "t2", "flair", "seg"):
            (folder / name / f"{name}_{part}.nii.gz").touch()
    return folder


def names_of(data: Path, *validation: str) -> dict[str, list[str]]:
    return find_split(data, validation).to_json()


def test_train_and_val_folders_are_the_split(tmp_path: Path) -> None:
    add_cases(tmp_path / "train", "b", "a")
    add_cases(tmp_path / "val", "c")
    assert names_of(tmp_path) == {"training": ["a", "b"], "validation": ["c"]}


def test_named_cases_validate_and_the_others_train(tmp_path: Path) -> None:
    add_cases(tmp_path, "x_01", "x_02", "y_03")
    assert names_of(tmp_path, "03", "x_01") == {
        "training": ["x_02"],
        "validation": ["x_01", "y_03"],
    }


def test_by_default_every_fifth_case_validates(tmp_path: Path) -> None:
    add_cases(tmp_path, *(f"c{number}" for number in range(7)))
    assert names_of(tmp_path) == {
        "training": ["c1", "c2", "c3", "c4", "c6"],
        "validation": ["c0", "c5"],
    }


@pytest.mark.parametrize("ending", ["0", "none"])
def test_an_ending_that_fits_no_single_case_is_refused(tmp_path: Path, ending: str) -> None:
    add_cases(tmp_path, "a0", "b0", "c1")
    with pytest.raises(OptionError, match=r"of 3 cases"):
        find_split(tmp_path, [ending])


def test_something_must_be_left_to_train_on(tmp_path: Path) -> None:
    add_cases(tmp_path, "a")
    with pytest.raises(OptionError, match="left to train on"):
        find_split(tmp_path, ["a"])


@pytest.mark.parametrize("folders", [("train", "val"), (".", ".")])
def test_a_split_is_restored_as_it_was_though_cases_have_come(
    tmp_path: Path, folders: tuple[str, str]
) -> None:
    first, second = (tmp_path / folder for folder in folders)
    add_cases(first, "a", "b")
    add_cases(second, "c")
    split = find_split(tmp_path) if folders[0] == "train" else find_split(tmp_path, ["c"])
    add_cases(first, "aa")
    assert restore_split(tmp_path, split.to_json()) == split


def test_a_case_that_is_gone_is_missed(tmp_path: Path) -> None:
    add_cases(tmp_path, "a", "b")
    with pytest.raises(OptionError, match="1 of its cases"):
        restore_split(tmp_path, {"training": ["a", "z"], "validation": ["b"]})
