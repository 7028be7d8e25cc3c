"""Which cases a path stands for, and by which numbering their label maps are written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from model_core.errors import OptionError, StudyError
from tests.training.judge.small_models import build_nearest_mean, nifti_run, png_run
from tests.training.tiny import write_brats_dataset, write_nifti_dataset, write_png_dataset
from training.judge.inputs import find_inputs, with_labels_of
from training.judge.loading import load_model
from training.judge.models import TrainedModel
from training.task import BRATS, Task


@pytest.fixture(autouse=True)
def known_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.judge.loading.build_network", build_nearest_mean)
    torch.set_num_threads(1)


@pytest.fixture
def model(tmp_path: Path) -> TrainedModel:
    loaded = load_model(nifti_run(tmp_path / "run"))
    assert isinstance(loaded, TrainedModel)
    return loaded


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_nifti_dataset(tmp_path, cases=2)


def names(cases: object) -> list[str]:
    return [case.name for case in cases]  # type: ignore[attr-defined]


class TestDataSet:
    def test_test_cases_come_first_and_others_are_asked_for(
        self, data: Path, model: TrainedModel
    ) -> None:
        assert names(find_inputs(data, model).cases) == ["vol_002", "vol_003"]
        labelled = find_inputs(data, model, which="labelled").cases
        assert names(labelled) == ["vol_000", "vol_001"]
        assert all(case.label for case in labelled)
        assert len(find_inputs(data, model, which="all").cases) == 4
        chosen = find_inputs(data, model, which="vol_003, vol_000").cases
        assert names(chosen) == ["vol_003", "vol_000"]

    def test_without_test_cases_all_are_meant(self, data: Path, model: TrainedModel) -> None:
        shutil.rmtree(data / "imagesTs")
        assert names(find_inputs(data, model).cases) == ["vol_000", "vol_001"]

    def test_an_unknown_case_is_an_error_without_its_name(
        self, data: Path, model: TrainedModel
    ) -> None:
        with pytest.raises(OptionError) as caught:
            find_inputs(data, model, which="vol_000,Jane_Doe")
        assert caught.value.got == "1 unknown of 2 names"

    def test_a_number_is_found_under_nnunet_raw(
        self, data: Path, model: TrainedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("nnUNet_raw", str(data.parent))
        assert names(find_inputs("1", model).cases) == ["vol_002", "vol_003"]


class TestFolder:
    def test_images_below_a_description_are_numbered_by_it(
        self, data: Path, model: TrainedModel
    ) -> None:
        described = data / "dataset.json"
        text = described.read_text().replace('"rim": 1', '"rim": 9')
        described.write_text(text)
        inputs = find_inputs(data / "imagesTr", model, truth=data / "labelsTr")
        assert inputs.dataset.values == {0: 0, 9: 1, 2: 2}  # labels as the model numbers them
        assert names(inputs.cases) == ["vol_000", "vol_001"]
        assert inputs.cases[0].label == data / "labelsTr" / "vol_000.nii.gz"

    def test_a_bare_folder_is_numbered_as_the_training_data_was(
        self, data: Path, model: TrainedModel, tmp_path: Path
    ) -> None:
        bare = tmp_path / "bare"
        shutil.copytree(data / "imagesTs", bare)
        inputs = find_inputs(bare, model)
        assert inputs.dataset.values == model.values
        assert names(inputs.cases) == ["vol_002", "vol_003"]

    def test_files_without_numbers_are_one_case_each(
        self, data: Path, model: TrainedModel, tmp_path: Path
    ) -> None:
        plain = tmp_path / "plain"
        plain.mkdir()
        for name in ("b", "a"):
            shutil.copy(data / "imagesTs" / "vol_002_0000.nii.gz", plain / f"{name}.nii.gz")
        (plain / "notes.txt").write_text("none")
        assert names(find_inputs(plain, model).cases) == ["a", "b"]

    def test_one_file_is_one_case(self, data: Path, model: TrainedModel, tmp_path: Path) -> None:
        (case,) = find_inputs(data / "imagesTs" / "vol_002_0000.nii.gz", model).cases
        assert case.name == "vol_002"
        pictures = write_png_dataset(tmp_path, cases=2)
        lone = tmp_path / "lone.png"
        shutil.copy(pictures / "imagesTs" / "png_002_0000.png", lone)
        seer = load_model(png_run(tmp_path / "seer"))
        truth = pictures / "labelsTr" / "png_000.png"
        (case,) = find_inputs(lone, seer, truth=truth).cases
        assert (case.name, case.label) == ("lone", truth)

    def test_an_empty_folder_and_no_folder_are_errors(
        self, model: TrainedModel, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        for name in ("empty", "missing"):
            with pytest.raises(StudyError):
                find_inputs(tmp_path / name, model)


def test_a_folder_of_brats_cases_keeps_its_naming_and_truth(
    tmp_path: Path, model: TrainedModel
) -> None:
    from dataclasses import replace

    brats = replace(model, config=replace(model.config, task=BRATS, normalisation="zscore-nonzero"))
    data = write_brats_dataset(tmp_path / "data", 2, shape=(24, 24, 20))
    inputs = find_inputs(data, brats)
    assert inputs.dataset.values == {0: 0, 1: 1, 2: 2, 4: 3}
    assert all(case.label for case in inputs.cases)
    (one,) = find_inputs(data / "tiny_001", brats).cases
    assert one.name == "tiny_001"


def test_labels_are_matched_by_name_and_others_refused(data: Path, model: TrainedModel) -> None:
    dataset = find_inputs(data, model).dataset
    turned = with_labels_of(dataset, Task(channels=("MRI",), labels=("core", "rim")))
    assert turned.values == {0: 0, 1: 2, 2: 1}
    with pytest.raises(StudyError, match="got liver, core"):
        with_labels_of(turned, Task(channels=("MRI",), labels=("liver", "core")))
