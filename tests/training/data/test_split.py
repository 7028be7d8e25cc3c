"""No case both trains and judges, and a run keeps its split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_core.errors import OptionError, StudyError
from tests.training.tiny import write_png_dataset
from training.data.dataset import CaseFiles, Dataset
from training.data.find import load_dataset
from training.data.split import Split, find_split, restore_split
from training.task import BRATS


def add_cases(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for part in ("t1", "t1ce", "t2", "flair", "seg"):
            (folder / name / f"{name}_{part}.nii.gz").touch()
    return folder


def names_of(data: Path, *validation: str) -> dict[str, list[str]]:
    return find_split(load_dataset(data), validation).to_json()


def numbered(count: int) -> Dataset:
    cases = tuple(CaseFiles(name=f"c{n:02d}", images=(), label=Path("x")) for n in range(count))
    return Dataset(name="d", layout="brats", task=BRATS, values={0: 0, 1: 1}, training=cases)


def test_train_and_val_folders_are_the_split(tmp_path: Path) -> None:
    add_cases(tmp_path / "train", "b", "a")
    add_cases(tmp_path / "val", "c")
    assert names_of(tmp_path) == {"training": ["a", "b"], "validation": ["c"]}


def test_a_split_file_is_the_split(tmp_path: Path) -> None:
    add_cases(tmp_path, "a", "b", "c", "d")
    split = {"training": ["d", "a"], "validation": ["c"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    assert names_of(tmp_path) == {"training": ["a", "d"], "validation": ["c"]}


@pytest.mark.parametrize(
    "content",
    [
        '{"training": ["a", "z"], "validation": ["b"]}',
        '{"training": ["a", "b"], "validation": ["b"]}',
        '{"training": ["a"]}',
        '{"training": [1], "validation": ["b"]}',
        "no json",
    ],
)
def test_a_split_file_that_cannot_be_meant_is_refused(tmp_path: Path, content: str) -> None:
    add_cases(tmp_path, "a", "b")
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(StudyError, match=r"split\.json"):
        load_dataset(tmp_path)


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
        names_of(tmp_path, ending)


def test_something_must_be_left_to_train_on(tmp_path: Path) -> None:
    add_cases(tmp_path, "a")
    with pytest.raises(OptionError, match="left to train on"):
        names_of(tmp_path, "a")


@pytest.mark.parametrize(("cases", "folds"), [(10, 5), (11, 5), (7, 7), (5, 2)])
def test_every_case_judges_in_one_fold_and_trains_in_the_others(cases: int, folds: int) -> None:
    dataset = numbered(cases)
    every = {case.name for case in dataset.labelled}
    splits = [find_split(dataset, fold=k, folds=folds).to_json() for k in range(folds)]
    judged = [name for split in splits for name in split["validation"]]
    assert sorted(judged) == sorted(every)
    for split in splits:
        assert set(split["training"]) | set(split["validation"]) == every
        assert not set(split["training"]) & set(split["validation"])
    sizes = [len(split["validation"]) for split in splits]
    assert max(sizes) - min(sizes) <= 1


def test_folds_are_drawn_from_the_seed() -> None:
    dataset = numbered(20)

    def fold(seed: int) -> Split:
        return find_split(dataset, fold=0, seed=seed)

    assert fold(3) == fold(3)
    assert fold(3) != fold(4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 5}, "fold: expected 0 to 4, got 5"),
        ({"fold": -1}, "fold: expected 0 to 4"),
        ({"fold": 0, "folds": 11}, "folds: expected 2 to 10"),
        ({"fold": 0, "folds": 1}, "folds: expected 2 to 10"),
        ({"fold": 0, "validation": ["c01"]}, "fold: expected a fold, or names"),
    ],
)
def test_a_fold_that_does_not_exist_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        find_split(numbered(10), **options)  # type: ignore[arg-type]


def test_folds_that_nnunet_has_drawn_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_png_dataset(tmp_path, cases=4, size=16)
    place = tmp_path / "preprocessed"
    (place / root.name).mkdir(parents=True)
    folds = [
        {"train": ["png_001", "png_002"], "val": ["png_000", "png_003"]},
        {"train": ["png_000", "png_003"], "val": ["png_001", "png_002"]},
    ]
    (place / root.name / "splits_final.json").write_text(json.dumps(folds))
    monkeypatch.setenv("nnUNet_preprocessed", str(place))
    split = find_split(load_dataset(root), fold=1, folds=2)
    assert split.to_json()["validation"] == ["png_001", "png_002"]
    folds[0]["val"].append("another")
    (place / root.name / "splits_final.json").write_text(json.dumps(folds))
    with pytest.raises(StudyError, match="splits_final"):
        find_split(load_dataset(root), fold=1, folds=2)


@pytest.mark.parametrize("folders", [("train", "val"), (".", ".")])
def test_a_split_is_restored_as_it_was_though_cases_have_come(
    tmp_path: Path, folders: tuple[str, str]
) -> None:
    first, second = (tmp_path / folder for folder in folders)
    add_cases(first, "a", "b")
    add_cases(second, "c")
    dataset = load_dataset(tmp_path)
    split = find_split(dataset) if folders[0] == "train" else find_split(dataset, ["c"])
    add_cases(first, "aa")
    assert restore_split(load_dataset(tmp_path), split.to_json()) == split


def test_a_case_that_is_gone_is_missed(tmp_path: Path) -> None:
    add_cases(tmp_path, "a", "b")
    with pytest.raises(OptionError, match="1 of its cases"):
        restore_split(load_dataset(tmp_path), {"training": ["a", "z"], "validation": ["b"]})
