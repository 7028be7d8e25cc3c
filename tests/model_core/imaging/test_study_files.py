from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_core.errors import StudyError
from model_core.imaging.study_files import find_studies
from model_core.types import CONTRASTS

BRATS_2021 = {"t1": "_t1", "t1ce": "_t1ce", "t2": "_t2", "flair": "_flair"}
BRATS_2023 = {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f"}
NNUNET = {"t1": "_0000", "t1ce": "_0001", "t2": "_0002", "flair": "_0003"}


def put(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def put_case(folder: Path, case: str, naming: dict[str, str], ending: str = ".nii.gz") -> None:
    put(folder, *(f"{case}{suffix}{ending}" for suffix in naming.values()))


@pytest.mark.parametrize("naming", [BRATS_2021, BRATS_2023, NNUNET])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".NII.GZ"])
def test_each_naming_finds_each_contrast(
    tmp_path: Path, naming: dict[str, str], ending: str
) -> None:
    put_case(tmp_path, "BraTS-GLI-00001-000", naming, ending)
    (study,) = find_studies(tmp_path)
    assert study.name == "BraTS-GLI-00001-000"
    assert tuple(study.paths) == CONTRASTS
    for contrast, path in study.paths.items():
        assert path.name == f"BraTS-GLI-00001-000{naming[contrast]}{ending}"
    assert study.truth is None


@pytest.mark.parametrize(("naming", "truth"), [(BRATS_2021, "a_seg"), (BRATS_2023, "a-seg")])
def test_the_truth_is_found_beside_the_images(
    tmp_path: Path, naming: dict[str, str], truth: str
) -> None:
    put_case(tmp_path, "a", naming)
    put(tmp_path, f"{truth}.nii.gz")
    (study,) = find_studies(tmp_path)
    assert study.truth == tmp_path / f"{truth}.nii.gz"


def test_folders_of_one_study_each_are_found_sorted(tmp_path: Path) -> None:
    for case in ("c", "a", "b"):
        put_case(tmp_path / case, case, BRATS_2021)
    put(tmp_path / ".hidden", *(f"h{suffix}.nii.gz" for suffix in BRATS_2021.values()))
    assert [study.name for study in find_studies(tmp_path)] == ["a", "b", "c"]


def test_files_named_by_the_contrast_alone_take_the_name_of_their_folder(tmp_path: Path) -> None:
    put(tmp_path / "mine", *(f"{contrast}.nii.gz" for contrast in CONTRASTS), "seg.nii.gz")
    (study,) = find_studies(tmp_path)
    assert study.name == "mine"
    assert study.truth is not None


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    put_case(tmp_path, "a", BRATS_2021)
    put(tmp_path, "readme.txt", "a_mask.nii.gz", "a_t1.json", "._a_t1.nii.gz", "b_seg.nii.gz")
    assert [study.name for study in find_studies(tmp_path)] == ["a"]


@pytest.mark.parametrize("deep", [True, False])
def test_nnunet_channels_follow_dataset_json(tmp_path: Path, deep: bool) -> None:
    images = tmp_path / "imagesTs" if deep else tmp_path
    put_case(images, "case", NNUNET)
    names = {"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"}
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": names}))
    (study,) = find_studies(tmp_path)
    numbers = {contrast: path.name[5:9] for contrast, path in study.paths.items()}
    assert numbers == {"t1": "0001", "t1ce": "0002", "t2": "0003", "flair": "0000"}


@pytest.mark.parametrize("names", [{"0": "CT"}, {"0": "T1", "1": "T1"}, {"1": "T1"}])
def test_channel_names_that_are_no_contrasts_are_refused(
    tmp_path: Path, names: dict[str, str]
) -> None:
    put_case(tmp_path, "case", NNUNET)
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": names}))
    with pytest.raises(StudyError, match=r"dataset\.json"):
        find_studies(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"channel_names": 3}', "\xff"])
def test_a_dataset_json_that_says_nothing_is_ignored(tmp_path: Path, content: str) -> None:
    put_case(tmp_path, "case", NNUNET)
    (tmp_path / "dataset.json").write_text(content, encoding="latin-1")
    assert find_studies(tmp_path)[0].paths["flair"].name == "case_0003.nii.gz"


@pytest.mark.parametrize("missing", CONTRASTS)
def test_a_missing_contrast_is_named_and_its_study_counted_not_named(
    tmp_path: Path, missing: Any
) -> None:
    put_case(tmp_path, "a", BRATS_2021)
    put_case(tmp_path, "jane-roe", BRATS_2023)
    (tmp_path / f"jane-roe{BRATS_2023[missing]}.nii.gz").unlink()
    with pytest.raises(StudyError, match=f"^{missing}: .* in study 2 of 2") as caught:
        find_studies(tmp_path)
    assert "jane" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_an_nnunet_dataset_is_read_past_its_label_maps(tmp_path: Path) -> None:
    put_case(tmp_path / "imagesTr", "BRATS_0001", NNUNET)
    put(tmp_path / "labelsTr", "BRATS_0001.nii.gz", "BRATS_0002.nii.gz")
    (study,) = find_studies(tmp_path)
    assert study.name == "BRATS_0001"
    assert study.truth is None


def test_two_files_for_one_contrast_are_refused(tmp_path: Path) -> None:
    put_case(tmp_path, "a", BRATS_2021)
    put(tmp_path, "a_t1ce.nii")
    with pytest.raises(StudyError, match=r"t1ce: .* got 2 files in study 1 of 1"):
        find_studies(tmp_path)


def test_one_name_in_two_folders_is_refused(tmp_path: Path) -> None:
    put_case(tmp_path / "imagesTr", "a", NNUNET)
    put_case(tmp_path / "imagesTs", "a", NNUNET)
    with pytest.raises(StudyError, match="study names used once"):
        find_studies(tmp_path)


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_a_folder_without_studies_says_how_files_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match="folder: expected files named as in BraTS") as caught:
        find_studies(tmp_path / name)
    assert str(tmp_path) not in str(caught.value)


def test_the_real_folder_holds_whole_studies_with_truth(real_cases: Path) -> None:
    studies = find_studies(real_cases)
    assert len(studies) >= 1
    for study in studies:
        assert study.truth is not None
        assert all(path.is_file() for path in study.paths.values())
