"""Predictions land on the native grid, in the data set's values, with all that belongs to them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from model_core.errors import Cancelled, OptionError, StudyError
from model_core.metrics import dice
from model_core.postprocess import Step
from tests.training.judge.small_models import (
    NearestMean,
    build_nearest_mean,
    nifti_config,
    nifti_run,
    png_run,
    write_run,
)
from tests.training.tiny import write_nifti_dataset, write_png_dataset
from training.data.find import load_dataset
from training.data.images import read_labels
from training.judge.corrections import Corrections
from training.judge.inputs import find_inputs
from training.judge.loading import load_model
from training.judge.predict import PredictOptions, predict_case, predict_cases
from training.region_rules import rules_of


@pytest.fixture(autouse=True)
def known_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.judge.loading.build_network", build_nearest_mean)
    torch.set_num_threads(1)


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    return write_nifti_dataset(tmp_path, cases=2)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_png_dataset(tmp_path, cases=2)


class TestOneCase:
    def test_labels_are_right_and_on_the_cases_own_grid(
        self, volumes: Path, tmp_path: Path
    ) -> None:
        dataset = load_dataset(volumes)
        case = dataset.labelled[1]
        labels, image = predict_case(load_model(nifti_run(tmp_path / "run")), case, dataset)
        truth = read_labels(case, dataset, on=image.grid)
        assert labels.shape == truth.shape
        for value in (1, 2):
            assert dice(labels == value, truth == value) > 0.98

    def test_another_spacing_and_orientation_make_little_difference(
        self, volumes: Path, tmp_path: Path
    ) -> None:
        config = nifti_config(spacing_mm=(1.2, 2.0, 1.2), orientation="SPL")
        model = load_model(nifti_run(tmp_path / "run", config=config))
        dataset = load_dataset(volumes)
        labels, image = predict_case(model, dataset.labelled[0], dataset)
        truth = read_labels(dataset.labelled[0], dataset, on=image.grid)
        assert dice(labels > 0, truth > 0) > 0.9

    def test_pictures_go_through_a_two_dimensional_network(
        self, pictures: Path, tmp_path: Path
    ) -> None:
        dataset = load_dataset(pictures)
        case = dataset.labelled[0]
        labels, image = predict_case(load_model(png_run(tmp_path / "run")), case, dataset)
        assert image.shape == labels.shape == (1, 64, 64)
        np.testing.assert_array_equal(labels > 0, image.array > 120)  # midway between the means

    def test_labels_of_another_order_are_matched_by_name(
        self, volumes: Path, tmp_path: Path
    ) -> None:
        turned = replace(nifti_config().task, labels=("core", "rim"), regions=())
        weights = NearestMean((50.0, 210.0, 170.0)).state_dict()
        run = write_run(tmp_path / "run", nifti_config(task=turned), weights)
        dataset = load_dataset(volumes)
        expected, _ = predict_case(
            load_model(nifti_run(tmp_path / "other")), dataset.labelled[0], dataset
        )
        labels, _ = predict_case(load_model(run), dataset.labelled[0], dataset)
        np.testing.assert_array_equal(labels, expected)

    def test_other_labels_are_refused(self, pictures: Path, tmp_path: Path) -> None:
        dataset = load_dataset(pictures)
        with pytest.raises(StudyError, match="rim, core"):
            predict_case(load_model(nifti_run(tmp_path / "run")), dataset.labelled[0], dataset)


class TestFolder:
    def test_the_test_cases_come_out_in_the_files_own_geometry_and_values(
        self, volumes: Path, tmp_path: Path
    ) -> None:
        description = json.loads((volumes / "dataset.json").read_text())
        description["labels"] = {"background": 0, "rim": 7, "core": 3}
        (volumes / "dataset.json").write_text(json.dumps(description))
        shutil.rmtree(volumes / "labelsTr")
        shutil.rmtree(volumes / "imagesTr")
        model = load_model(nifti_run(tmp_path / "run"))
        inputs = find_inputs(volumes, model)
        out = tmp_path / "out"
        results = predict_cases(model, inputs, out, PredictOptions(pictures=1))
        assert [result.name for result in results.done] == ["vol_002", "vol_003"]
        for name in ("vol_002", "vol_003"):
            written = nib.load(out / "raw" / f"{name}.nii.gz")
            source = nib.load(volumes / "imagesTs" / f"{name}_0000.nii.gz")
            np.testing.assert_array_equal(written.affine, source.affine)
            assert written.header["sform_code"] == source.header["sform_code"]
            assert set(np.unique(written.dataobj)) == {0, 3, 7}
        assert (out / "pictures" / "vol_002.png").is_file()
        assert not (out / "pictures" / "vol_003.png").exists()
        assert not (out / "postprocessed").exists()

    def test_pictures_come_out_as_pictures(self, pictures: Path, tmp_path: Path) -> None:
        model = load_model(png_run(tmp_path / "run"))
        inputs = find_inputs(pictures, model, which="labelled")
        results = predict_cases(model, inputs, tmp_path / "out", PredictOptions(pictures=0))
        truth = np.asarray(Image.open(pictures / "labelsTr" / "png_000.png"))
        found = np.asarray(Image.open(tmp_path / "out" / "raw" / "png_000.png"))
        assert found.dtype == np.uint8
        assert set(np.unique(found)) == {0, 1}
        expected = dice(found > 0, truth > 0)
        assert results.scores("raw")["png_000"].regions["blob"].dice == pytest.approx(expected)

    def test_corrections_are_kept_apart_and_accounted_for(
        self, volumes: Path, tmp_path: Path
    ) -> None:
        model = load_model(nifti_run(tmp_path / "run"))
        inputs = find_inputs(volumes, model, which="vol_000")
        # all of the core goes: its label becomes what encloses nothing, background
        step = {"name": "remove_small_components", "params": {"region": "core", "min_mm3": 1e6}}
        steps = (Step.model_validate(step, context={"rules": rules_of(model.task)}),)
        corrections = Corrections(steps=steps, labels=model.task.labels, regions=model.task.regions)
        out = tmp_path / "out"
        options = PredictOptions(corrections=corrections, pictures=1)
        (done,) = predict_cases(model, inputs, out, options).done
        raw = np.asarray(nib.load(out / "raw" / "vol_000.nii.gz").dataobj)
        after = np.asarray(nib.load(out / "postprocessed" / "vol_000.nii.gz").dataobj)
        assert (raw == 2).any()
        assert not (after == 2).any()
        assert done.changed_voxels == np.count_nonzero(raw != after)
        summary = json.loads((out / "summary.json").read_text())
        assert summary["corrections"]["voxels_changed"] == done.changed_voxels
        assert summary["corrections"]["dice_gain"]["core"] < -0.9
        assert summary["corrections"]["dice_gain"]["rim"] == 0
        assert summary["settings"]["corrections"] == [step]
        assert done.voxels["core"] == np.count_nonzero(raw == 2)
        volume = summary["cases"][0]["volumes_ml"]["core"]
        assert volume == pytest.approx(done.voxels["core"] * 2.5e-3)  # 1 x 1 x 2.5 mm
        cases = summary["scores"]["postprocessed"]["cases"]
        assert cases[0]["regions"]["core"]["dice"] == 0
        assert cases[0]["label_dice"]["core"] == 0
        assert (out / "pictures" / "vol_000.png").is_file()

    def test_a_broken_case_is_noted_and_the_others_go_on(
        self, volumes: Path, tmp_path: Path
    ) -> None:
        (volumes / "imagesTs" / "vol_002_0000.nii.gz").write_bytes(b"no image")
        model = load_model(nifti_run(tmp_path / "run"))
        out = tmp_path / "out"
        results = predict_cases(model, find_inputs(volumes, model), out, PredictOptions(pictures=0))
        assert [result.name for result in results.done] == ["vol_003"]
        (failure,) = results.failed
        assert failure.name == "vol_002"
        assert "MRI" in failure.reason
        assert [path.name for path in (out / "raw").iterdir()] == ["vol_003.nii.gz"]
        summary = json.loads((out / "summary.json").read_text())
        assert summary["failed"] == [{"case": "vol_002", "reason": failure.reason}]

    def test_running_out_of_memory_is_a_failed_case_and_a_bug_is_not(
        self, volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = load_model(nifti_run(tmp_path / "run"))
        inputs, out, options = find_inputs(volumes, model), tmp_path / "out", PredictOptions()
        answers = iter([MemoryError(), RuntimeError("a bug")])

        def fail(*_: object, **__: object) -> None:
            raise next(answers)

        monkeypatch.setattr("training.judge.models.native_labels", fail)
        with pytest.raises(RuntimeError, match="a bug"):
            predict_cases(model, inputs, out, options)
        (failure,) = json.loads((out / "summary.json").read_text())["failed"]
        assert failure["case"] == "vol_002"
        assert failure["reason"].startswith("out of memory")

    def test_what_was_finished_is_kept_when_the_work_is_stopped_and_taken_up(
        self, volumes: Path, tmp_path: Path
    ) -> None:
        model = load_model(nifti_run(tmp_path / "run"))
        inputs, out = find_inputs(volumes, model), tmp_path / "out"
        options = PredictOptions(pictures=0)

        def stop() -> bool:
            return (out / "raw" / "vol_002.nii.gz").exists()

        with pytest.raises(Cancelled):
            predict_cases(model, inputs, out, options, cancelled=stop)
        assert len(json.loads((out / "summary.json").read_text())["cases"]) == 1
        results = predict_cases(model, inputs, out, options)
        assert [result.predicted for result in results.done] == [False, True]

    def test_a_case_of_the_same_name_and_other_images_is_predicted_anew(
        self, volumes: Path, tmp_path: Path
    ) -> None:
        model = load_model(nifti_run(tmp_path / "run"))
        inputs, out = find_inputs(volumes, model), tmp_path / "out"
        options = PredictOptions(pictures=0)
        before = predict_cases(model, inputs, out, options).done
        first, second = (case.images[0] for case in inputs.cases)
        shutil.copyfile(second, first)
        after = predict_cases(model, inputs, out, options).done
        assert [result.predicted for result in after] == [True, False]
        assert after[0].voxels == before[1].voxels != before[0].voxels
        again = predict_cases(model, inputs, out, options).done
        assert [result.predicted for result in again] == [False, False]

    def test_nothing_of_other_images_stays_under_the_name_of_a_case_that_fails(
        self, volumes: Path, tmp_path: Path
    ) -> None:
        model = load_model(nifti_run(tmp_path / "run"))
        inputs, out = find_inputs(volumes, model), tmp_path / "out"
        options = PredictOptions(pictures=1)
        predict_cases(model, inputs, out, options)
        inputs.cases[0].images[0].write_bytes(b"no image")
        predict_cases(model, inputs, out, options)
        assert not (out / "raw" / "vol_002.nii.gz").exists()
        assert not (out / "pictures" / "vol_002.png").exists()
        summary = json.loads((out / "summary.json").read_text())
        assert list(summary["sources"]) == ["vol_003"]

    def test_what_an_earlier_call_made_is_kept_through_one_that_is_stopped_at_once(
        self, volumes: Path, tmp_path: Path
    ) -> None:
        model = load_model(nifti_run(tmp_path / "run"))
        inputs, out = find_inputs(volumes, model), tmp_path / "out"
        options = PredictOptions(pictures=0)
        predict_cases(model, inputs, out, options)
        with pytest.raises(Cancelled):
            predict_cases(model, inputs, out, options, cancelled=lambda: True)
        results = predict_cases(model, inputs, out, options)
        assert [result.predicted for result in results.done] == [False, False]

    def test_results_of_other_weights_are_never_mixed(self, volumes: Path, tmp_path: Path) -> None:
        model = load_model(nifti_run(tmp_path / "run"))
        other = load_model(nifti_run(tmp_path / "other", means=(50.0, 160.0, 200.0)))
        out, options = tmp_path / "out", PredictOptions(pictures=0)
        inputs = find_inputs(volumes, model)
        predict_cases(model, inputs, out, options)
        with pytest.raises(OptionError, match="results of other settings"):
            predict_cases(other, inputs, out, options)
        done = predict_cases(other, inputs, out, replace(options, overwrite=True)).done
        assert all(result.predicted for result in done)
        settings = json.loads((out / "summary.json").read_text())["settings"]
        assert settings["weights"] == other.fingerprint

    def test_a_folder_of_somebody_elses_label_maps_is_left_alone(
        self, volumes: Path, tmp_path: Path
    ) -> None:
        model = load_model(nifti_run(tmp_path / "run"))
        theirs = tmp_path / "out" / "raw" / "vol_002.nii.gz"
        theirs.parent.mkdir(parents=True)
        theirs.write_bytes(b"precious")
        options = PredictOptions(overwrite=True)
        with pytest.raises(OptionError, match="unknown origin"):
            predict_cases(model, find_inputs(volumes, model), tmp_path / "out", options)
        assert theirs.read_bytes() == b"precious"

    def test_corrections_of_another_task_are_refused_before_the_work(
        self, volumes: Path, tmp_path: Path
    ) -> None:
        model = load_model(nifti_run(tmp_path / "run"))
        options = PredictOptions(corrections=Corrections(steps=()))
        with pytest.raises(OptionError, match="corrections"):
            predict_cases(model, find_inputs(volumes, model), tmp_path / "out", options)
        assert not (tmp_path / "out").exists()

    def test_scores_of_cases_that_trained_the_model_are_marked(
        self, volumes: Path, tmp_path: Path
    ) -> None:
        model = load_model(nifti_run(tmp_path / "run", training=["vol_000"]))
        inputs = find_inputs(volumes, model, which="labelled")
        predict_cases(model, inputs, tmp_path / "out", PredictOptions(pictures=0))
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert summary["scored_but_trained_on"] == ["vol_000"]
