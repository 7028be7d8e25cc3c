"""Every layout becomes the same kind of data set, by what it declares and never by its values."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from model_core.errors import InputError, OptionError, StudyError
from tests.training.tiny import (
    describe,
    write_brats_dataset,
    write_nifti_dataset,
    write_png_dataset,
)
from training.data.find import load_dataset, resolve_dataset, unlabelled_cases
from training.task import BRATS

NAMES = {
    "brats2021": ("t1", "t1ce", "t2", "flair"),
    "brats2023": ("t1n", "t1c", "t2w", "t2f"),
}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def add_case(folder: Path, name: str, parts: tuple[str, ...], *, dash: str = "_") -> None:
    touch(*(folder / f"{name}{dash}{part}.nii.gz" for part in parts))


def described(root: Path, **content: Any) -> Path:
    root.mkdir(exist_ok=True)
    return describe(root, content, cases=0, ending=content.pop("file_ending", ".nii.gz"))


# ---------------------------------------------------------------- BraTS


@pytest.mark.parametrize(("convention", "et"), [("brats2021", 4), ("brats2023", 3)])
@pytest.mark.parametrize("place", ["{name}", "."])
def test_the_names_of_brats_files_declare_the_values(
    tmp_path: Path, convention: str, et: int, place: str
) -> None:
    dash = "_" if convention == "brats2021" else "-"
    for name in ("b", "a"):
        folder = tmp_path / place.format(name=name)
        add_case(folder, name, (*NAMES[convention], "seg"), dash=dash)
    found = load_dataset(tmp_path)
    assert (found.layout, found.task) == ("brats", BRATS)
    assert found.values == {0: 0, 1: 1, 2: 2, et: 3}
    assert [case.name for case in found.training] == ["a", "b"]
    assert [path.name for path in found.training[0].images] == [
        f"a{dash}{part}.nii.gz" for part in NAMES[convention]
    ]
    assert found.training[0].label == tmp_path / place.format(name="a") / f"a{dash}seg.nii.gz"


def test_names_of_no_convention_need_the_option(tmp_path: Path) -> None:
    add_case(tmp_path, "a", ("t1", "t1gd", "t2", "flair", "seg"))
    with pytest.raises(OptionError, match="labels: expected files named"):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, labels="brats2023").values[3] == 3


def test_the_option_is_stronger_than_the_names(tmp_path: Path) -> None:
    add_case(tmp_path, "a", (*NAMES["brats2021"], "seg"))
    assert dict(load_dataset(tmp_path, labels="brats2023").values) == {0: 0, 1: 1, 2: 2, 3: 3}


def test_plain_names_in_folders_take_the_folders_name(tmp_path: Path) -> None:
    touch(*(tmp_path / "case_7" / f"{part}.nii" for part in (*NAMES["brats2021"], "seg")))
    (case,) = load_dataset(tmp_path).training
    assert case.name == "case_7"


def test_a_case_without_truth_is_a_test_case_unless_it_stands_in_a_training_folder(
    tmp_path: Path,
) -> None:
    add_case(tmp_path / "flat", "a", (*NAMES["brats2021"], "seg"))
    add_case(tmp_path / "flat", "b", NAMES["brats2021"])
    flat = load_dataset(tmp_path / "flat")
    assert [case.name for case in flat.training] == ["a"]
    assert [case.name for case in flat.test] == ["b"]
    add_case(tmp_path / "split" / "train", "a", NAMES["brats2021"])
    add_case(tmp_path / "split" / "val", "b", (*NAMES["brats2021"], "seg"))
    split = load_dataset(tmp_path / "split")
    assert split.training[0].label == tmp_path / "split" / "train" / "a_seg.nii.gz"
    assert [case.name for case in split.validation] == ["b"]


def test_a_missing_contrast_is_named_where_it_should_be(tmp_path: Path) -> None:
    add_case(tmp_path, "a", ("t1", "flair", "t2", "seg"))
    (case,) = load_dataset(tmp_path).training
    assert case.images[1] == tmp_path / "a_t1ce.nii.gz"


def test_two_files_for_one_contrast_and_a_case_in_two_folders_are_told(tmp_path: Path) -> None:
    add_case(tmp_path / "train" / "one", "a", (*NAMES["brats2021"], "seg"))
    add_case(tmp_path / "train" / "two", "a", ("t1",))
    add_case(tmp_path / "val", "a", (*NAMES["brats2021"], "seg"))
    with pytest.raises(StudyError, match="every case once"):
        load_dataset(tmp_path)
    problems = load_dataset(tmp_path, strict=False).problems
    assert [problem.text for problem in problems] == ["2 files for t1", "in train and in val"]


# ---------------------------------------------------------------- dataset.json


def test_nnunet_volumes(tmp_path: Path) -> None:
    found = load_dataset(write_nifti_dataset(tmp_path, cases=3))
    assert (found.name, found.layout) == ("Dataset001_TinyNifti", "nnunet")
    assert found.task.channels == ("MRI",)
    assert found.task.labels == ("rim", "core")
    assert found.task.heads == "labels"
    assert dict(found.values) == {0: 0, 1: 1, 2: 2}
    assert [case.name for case in found.training] == ["vol_000", "vol_001", "vol_002"]
    assert [case.label for case in found.test] == [None, None]


def test_labels_may_have_gaps_and_any_order(tmp_path: Path) -> None:
    root = described(
        tmp_path / "Dataset003_Gaps",
        channel_names={"0": "MRI", "1": "MRI"},
        labels={"background": 0, "b": 7, "a": 3},
    )
    found = load_dataset(root)
    assert found.task.labels == ("a", "b")
    assert dict(found.values) == {0: 0, 3: 1, 7: 2}
    assert found.file_values == {0: 0, 1: 3, 2: 7}
    assert found.task.channels == ("MRI", "MRI 2")


def test_regions_are_unions_painted_in_their_order(tmp_path: Path) -> None:
    root = described(
        tmp_path / "Dataset004_Kidney",
        channel_names={"0": "CT"},
        labels={"background": 0, "kidney and mass": [1, 2, 3], "mass": [2, 3], "tumour": 2},
        regions_class_order=[1, 3, 2],
    )
    task = load_dataset(root).task
    assert task.heads == "regions"
    assert task.labels == ("kidney and mass", "tumour", "mass")
    assert [(r.name, r.labels, r.paints) for r in task.regions] == [
        ("kidney and mass", (1, 2, 3), 1),
        ("mass", (2, 3), 3),
        ("tumour", (2,), 2),
    ]


def test_a_decathlon_task_lists_four_d_files(tmp_path: Path) -> None:
    content = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {
            "0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour",
        },
        "training": [
            {"image": "./imagesTr/BRATS_2.nii.gz", "label": "./labelsTr/BRATS_2.nii.gz"},
            {"image": "./imagesTr/BRATS_1.nii.gz", "label": "./labelsTr/BRATS_1.nii.gz"},
        ],
        "test": ["./imagesTs/BRATS_3.nii.gz"],
    }  # fmt: skip
    touch(tmp_path / "imagesTr" / "BRATS_2.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    found = load_dataset(tmp_path)
    assert found.layout == "msd"
    assert found.task.is_brats
    assert found.task.channels == ("flair", "t1", "t1ce", "t2")
    assert dict(found.values) == {0: 0, 1: 2, 2: 1, 3: 3}
    assert [case.name for case in found.training] == ["BRATS_1", "BRATS_2"]
    assert found.training[0].images == (tmp_path / "imagesTr" / "BRATS_1.nii.gz",)
    assert found.training[0].channels == found.task.channels
    assert [case.name for case in found.test] == ["BRATS_3"]


def test_nnunet_one_lists_names_without_numbers(tmp_path: Path) -> None:
    content = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }
    touch(tmp_path / "imagesTr" / "a_0000.nii.gz", tmp_path / "labelsTr" / "a.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    found = load_dataset(tmp_path)
    assert found.layout == "nnunet"
    assert found.training[0].images == (tmp_path / "imagesTr" / "a_0000.nii.gz",)


def test_cases_that_the_description_lists_may_lie_anywhere(tmp_path: Path) -> None:
    root = described(
        tmp_path / "Dataset005_Listed",
        channel_names={"0": "MRI"},
        labels={"background": 0, "x": 1},
        dataset={"c": {"images": ["../elsewhere/c.nii.gz"], "label": "labels/c.nii.gz"}},
    )
    (case,) = load_dataset(root).training
    assert case.images == (root / "../elsewhere/c.nii.gz",)
    assert case.label == root / "labels/c.nii.gz"


@pytest.mark.parametrize(
    ("channels", "labels", "order", "values"),
    [
        (
            ["T1", "T1ce", "T2", "Flair"],
            {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3},
            [1, 2, 3],
            {0: 0, 1: 2, 2: 1, 3: 3},
        ),
        (
            ["t2f", "t1c", "t1n", "t2w"],
            {"background": 0, "NCR": 1, "ED": 2, "ET": 4},
            None,
            {0: 0, 1: 1, 2: 2, 4: 3},
        ),
        (
            ["T1", "T1gd", "T2", "FLAIR"],
            {"background": 0, "necrotic core": 1, "peritumoral edema": 2, "enhancing tumour": 3},
            None,
            {0: 0, 1: 1, 2: 2, 3: 3},
        ),
    ],
)
def test_glioma_by_declaration_is_the_brats_task(
    tmp_path: Path, channels: list[str], labels: Any, order: Any, values: dict[int, int]
) -> None:
    root = described(
        tmp_path / "Dataset137_BraTS2021",
        channel_names={str(n): name for n, name in enumerate(channels)},
        labels=labels,
        regions_class_order=order,
    )
    found = load_dataset(root)
    assert found.task.is_brats
    assert found.task.heads == ("labels" if order is None else "regions")
    assert dict(found.values) == values
    spelled = {"t1": "t1", "t2f": "flair", "t1c": "t1ce"}[channels[0].lower().replace("t1gd", "x")]
    assert found.task.channels[0] == spelled


@pytest.mark.parametrize(
    ("channels", "labels"),
    [
        (["T1", "T1ce", "T2"], {"background": 0, "NCR": 1, "ED": 2, "ET": 3}),
        (["T1", "T1ce", "T2", "PET"], {"background": 0, "NCR": 1, "ED": 2, "ET": 3}),
        (["T1", "T1ce", "T2", "FLAIR"], {"background": 0, "NCR": 1, "ED": 2, "ET": 3, "RC": 4}),
        (["T1", "T1ce", "T2", "FLAIR"], {"background": 0, "left": 1, "right": 2, "both": 3}),
    ],
)
def test_what_only_looks_like_glioma_keeps_its_own_task(
    tmp_path: Path, channels: list[str], labels: Any
) -> None:
    root = described(
        tmp_path / "Dataset006_Other",
        channel_names={str(n): name for n, name in enumerate(channels)},
        labels=labels,
    )
    found = load_dataset(root)
    assert not found.task.is_brats
    assert found.task.channels == tuple(channels)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": {"background": 0, "x": 1, "ignore": 2}}, "ignore label"),
        ({"labels": {"x": 1}}, "background as 0"),
        ({"labels": {"background": 0, "x": 1, "y": 1}}, "every other value once"),
        ({"labels": {"background": 0}}, "1 to 255 labels"),
        ({"labels": {"background": 0, "x": "one"}}, "labels"),
        ({"labels": {"background": 0, "x": [1, 2]}}, "regions_class_order"),
        ({"labels": {"background": 0, "x": [1, 2]}, "regions_class_order": [9]}, "regions_class"),
        ({"channel_names": {"1": "MRI"}}, "channel_names"),
        ({"file_ending": ".mha"}, "file_ending"),
    ],
)
def test_a_description_that_cannot_be_used_names_its_entry(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    plain = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "x": 1}}
    root = described(tmp_path / "Dataset007_Bad", **{**plain, **changed})
    with pytest.raises(InputError, match=message):
        load_dataset(root)


# ---------------------------------------------------------------- where it lies


def test_a_number_or_a_name_is_looked_up_in_nnunets_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_png_dataset(tmp_path, cases=1, size=16)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert resolve_dataset("2") == root
    assert resolve_dataset("002") == root
    assert resolve_dataset("Dataset002_TinyPng") == root
    assert load_dataset("2").name == root.name
    with pytest.raises(StudyError, match="Dataset009_NAME in nnUNet_raw, got 0"):
        resolve_dataset("9")


def test_a_folder_that_exists_goes_before_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2").mkdir()
    assert resolve_dataset("2") == Path("2")


@pytest.mark.parametrize("path", ["nothing", "."])
def test_no_data_set_is_told_with_the_layouts(tmp_path: Path, path: str) -> None:
    with pytest.raises(StudyError, match="data: expected a folder of BraTS cases"):
        load_dataset(tmp_path / path)


def test_images_without_a_description_are_cases_to_predict(tmp_path: Path) -> None:
    write_png_dataset(tmp_path, cases=1, size=16)
    task = load_dataset(tmp_path / "Dataset002_TinyPng").task
    cases = unlabelled_cases(tmp_path / "Dataset002_TinyPng" / "imagesTs", task)
    assert [(case.name, case.label) for case in cases] == [("png_001", None), ("png_002", None)]
    write_brats_dataset(tmp_path / "brats", cases=1)
    (case,) = unlabelled_cases(tmp_path / "brats", BRATS)
    assert case.name == "tiny_000"
    with pytest.raises(StudyError, match="CASE_0000"):
        unlabelled_cases(tmp_path / "brats", task)


def test_a_data_set_travels_between_processes(tmp_path: Path) -> None:
    found = load_dataset(write_nifti_dataset(tmp_path, cases=1))
    back = pickle.loads(pickle.dumps(found))
    assert back == found
    with pytest.raises(TypeError):
        back.values[9] = 9


def test_of_several_values_for_one_label_the_painted_one_is_written(tmp_path: Path) -> None:
    root = described(
        tmp_path / "Dataset008_Parts",
        channel_names={"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"},
        labels={"background": 0, "whole tumor": [1, 2, 3, 4], "tumor core": [2, 3], "ET": [3]},
        regions_class_order=[4, 2, 3],
    )
    found = load_dataset(root)
    assert dict(found.values) == {0: 0, 1: 2, 2: 1, 3: 3, 4: 2}
    assert found.file_values == {0: 0, 1: 2, 2: 4, 3: 3}
