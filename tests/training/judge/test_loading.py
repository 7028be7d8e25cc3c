"""A run, its folds and its bundle: what is loaded answers as it should, and says who it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from model_core.checkpoints import CardDraft, load_bundle, save_bundle
from model_core.errors import CheckpointError, OptionError, StudyError
from model_core.imaging.study import find_studies, load_study
from model_core.inference.segmenter import Segmenter, SegmentOptions
from model_core.networks import build_network, network_config
from tests.training.judge.small_models import (
    NIFTI_MEANS,
    build_nearest_mean,
    nifti_config,
    nifti_run,
    write_run,
)
from tests.training.tiny import write_brats_dataset, write_nifti_dataset
from training.config import TrainConfig
from training.data.find import load_dataset
from training.data.images import prepare_images, read_images
from training.judge.loading import load_model
from training.judge.models import BundleModel, TrainedModel
from training.loop.checkpoint import load_checkpoint, save_checkpoint
from training.recipes import small_segmamba


@pytest.fixture
def known_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.judge.loading.build_network", build_nearest_mean)
    torch.set_num_threads(1)


def brats_config() -> TrainConfig:
    return replace(
        small_segmamba(),
        network_args={"depths": (1, 1, 1, 1), "features": (4, 4, 8, 8), "hidden": 8},
        patch=(32, 32, 32),
        precision="float32",
    )


def brats_run(folder: Path) -> Path:
    config = brats_config()
    torch.manual_seed(3)
    network = build_network(config.network, **config.network_args)
    return write_run(folder, config, network.state_dict(), training=["tiny_001"])


def bundle_of(run: Path, folder: Path) -> Path:
    """The run's weights as a bundle whose card says what the config says."""
    config = brats_config()
    network = build_network(config.network, **config.network_args)
    best = torch.load(run / "checkpoints" / "best.pt", weights_only=True)
    network.load_state_dict(best["weights"])
    card = CardDraft(
        name="tiny", version="1", family="segmamba", network=network_config(network),
        channels=config.task.channels, heads="regions", outputs=("WT", "TC", "ET"),
        label_scheme="brats2021", orientation=config.orientation, spacing_mm=(1.0, 1.0, 1.0),
        normalisation="zscore-nonzero", window=config.sliding_window, overlap=config.overlap,
        mirror_axes=(0, 1, 2), tta="none",
        postprocess=({"name": "keep_largest", "params": {"region": "WT"}},),
        training={"data": "none", "code_version": "0", "recipe": "r", "cases": ["phantom-0001"]},
        metrics={}, licence="MIT", intended_use="tests", limitations="all", citation="none",
    )  # fmt: skip
    save_bundle(folder, network, card=card)
    return folder


class TestBrats:
    """A real, small network with random weights."""

    def test_a_run_its_bundle_and_the_segmenter_give_the_same_labels(self, tmp_path: Path) -> None:
        torch.set_num_threads(1)
        dataset = load_dataset(write_brats_dataset(tmp_path / "data", 1, shape=(36, 34, 33)))
        run = brats_run(tmp_path / "run")
        bundle = bundle_of(run, tmp_path / "bundle")
        trained = load_model(run, device="cpu", precision="float32")
        carded = load_model(bundle, device="cpu", precision="float32")
        assert isinstance(trained, TrainedModel)
        assert isinstance(carded, BundleModel)
        volumes = read_images(dataset.labelled[0], trained.task)
        mine = trained.predict(volumes, tta="fast")
        (files,) = find_studies(tmp_path / "data")
        segmenter = Segmenter(load_bundle(bundle), precision="float32")
        options = SegmentOptions(tta="fast", postprocess=False)
        expected = segmenter.segment(load_study(files.paths), options).labels
        assert len(np.unique(expected)) > 1
        assert_array_equal(carded.predict(volumes, tta="fast"), expected)
        assert_array_equal(mine, expected)

    @pytest.mark.gpu
    def test_a_gpu_gives_the_labels_of_the_cpu(self, tmp_path: Path) -> None:
        dataset = load_dataset(write_brats_dataset(tmp_path / "data", 1, shape=(36, 34, 33)))
        run = brats_run(tmp_path / "run")
        labels = []
        for device in ("cpu", "cuda"):
            model = load_model(run, device=device, precision="float32")
            labels.append(model.predict(read_images(dataset.labelled[0], model.task), tta="fast"))
        assert np.mean(labels[0] != labels[1]) < 0.01  # TF32 and another order of sums

    def test_what_a_bundle_says_of_itself(self, tmp_path: Path) -> None:
        model = load_model(bundle_of(brats_run(tmp_path / "run"), tmp_path / "bundle"))
        assert model.name == "tiny 1"
        assert model.task.is_brats
        assert model.values == {0: 0, 1: 1, 2: 2, 4: 3}
        assert model.trained_on == {"phantom-0001"}
        assert model.passes("full") == 8
        corrections = model.own_corrections()
        assert corrections is not None
        assert [step.name for step in corrections.steps] == ["keep_largest"]


@pytest.mark.usefixtures("known_network")
class TestFolds:
    def folds(self, root: Path) -> Path:
        for fold, shift in enumerate((-60.0, 0.0, 30.0)):
            means = [mean + shift for mean in NIFTI_MEANS]
            nifti_run(root / f"fold_{fold}", means, training=[f"vol_{fold:03d}"])
        return root

    def test_the_logits_are_averaged(self, tmp_path: Path) -> None:
        dataset = load_dataset(write_nifti_dataset(tmp_path / "data", cases=2))
        root = self.folds(tmp_path / "folds")
        volumes = read_images(dataset.labelled[0], dataset.task)
        prepared = prepare_images(volumes, nifti_config())
        models = [load_model(root / f"fold_{fold}") for fold in range(3)]
        each = [model.predict_scores(prepared) for model in models]  # type: ignore[union-attr]
        ensemble = load_model(root)
        assert isinstance(ensemble, TrainedModel)
        scores = ensemble.predict_scores(prepared)
        np.testing.assert_allclose(scores, np.mean(each, axis=0), rtol=1e-4, atol=0.5)
        labels = ensemble.predict(volumes)
        expected = prepared.paste(dataset.task.decode(np.mean(each, axis=0)))
        assert np.count_nonzero(labels != expected) <= 2  # ties, rounded one way or the other
        assert_array_equal(load_model(root, fold=1).predict(volumes), models[1].predict(volumes))
        assert ensemble.trained_on == {"vol_000", "vol_001", "vol_002"}
        assert len({model.fingerprint for model in (*models, ensemble)}) == 4

    def test_a_fold_that_is_not_there_is_an_error_that_lists_them(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="one of 0, 1, 2"):
            load_model(self.folds(tmp_path / "folds"), fold=7)

    def test_folds_of_two_recipes_are_no_ensemble(self, tmp_path: Path) -> None:
        root = self.folds(tmp_path / "folds")
        nifti_run(root / "fold_3", config=nifti_config(patch=(8, 16, 16)))
        with pytest.raises(StudyError, match="differ in patch"):
            load_model(root)


@pytest.mark.usefixtures("known_network")
class TestRun:
    def test_values_are_those_of_the_data_it_was_trained_on(self, tmp_path: Path) -> None:
        run = nifti_run(tmp_path / "run")
        assert load_model(run).values == {0: 0, 1: 1, 2: 2}
        (run / "dataset.json").write_text(json.dumps({"values": {"0": 0, "7": 1, "3": 2}}))
        assert load_model(run).values == {0: 0, 7: 1, 3: 2}

    def test_corrections_in_its_folder_are_its_own(self, tmp_path: Path) -> None:
        run = nifti_run(tmp_path / "run")
        assert load_model(run).own_corrections() is None
        found = {
            "format": "segmamba-corrections/1",
            "steps": [{"name": "keep_largest", "params": {"region": "rim"}}],
            "task": {"labels": ["rim", "core"], "dims": 3, "regions": [
                {"name": "rim", "labels": [1], "paints": 1},
                {"name": "core", "labels": [2], "paints": 2},
            ]},
            "values": {},
        }  # fmt: skip
        (run / "corrections.json").write_text(json.dumps(found))
        corrections = load_model(run).own_corrections()
        assert corrections is not None
        assert [step.name for step in corrections.steps] == ["keep_largest"]
        fold = nifti_run(run / "fold_0")  # those of a set of folds are each fold's
        assert load_model(fold).own_corrections() == corrections

    def test_mirrors_are_those_that_it_was_trained_with(self, tmp_path: Path) -> None:
        still = load_model(nifti_run(tmp_path / "a"))  # flip=0
        assert still.passes("full") == 1

    def test_before_the_first_validation_the_last_average_predicts(self, tmp_path: Path) -> None:
        run = nifti_run(tmp_path / "run")
        best = run / "checkpoints" / "best.pt"
        content = load_checkpoint(best)
        average = {**content.pop("weights"), "updates": 5}
        fingerprint = load_model(run).fingerprint
        best.unlink()
        save_checkpoint(run / "checkpoints" / "last.pt", {**content, "ema": average})
        assert load_model(run).fingerprint == fingerprint

    def test_before_the_first_save_there_is_nothing_to_load(self, tmp_path: Path) -> None:
        run = nifti_run(tmp_path / "run")
        (run / "checkpoints" / "best.pt").unlink()
        with pytest.raises(CheckpointError):
            load_model(run)

    def test_what_is_no_model_is_an_error_that_says_what_is(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="a set of folds or of a bundle"):
            load_model(tmp_path)
        with pytest.raises(OptionError, match="fold"):
            load_model(nifti_run(tmp_path / "run"), fold=0)
        with pytest.raises(OptionError, match="device"):
            load_model(tmp_path / "run", device="abacus")
