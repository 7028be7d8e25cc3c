"""Whole runs on real files: data set in; weights, predictions, scores, report and bundle out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from model_core.checkpoints import load_bundle
from model_core.errors import OptionError
from model_core.imaging.nifti import read_label_map, read_nifti
from model_core.metrics import dice
from tests.training.tiny import write_brats_dataset, write_nifti_dataset, write_png_dataset
from tests.training.tiny_runs import LIGHTM, SEGMAMBA, ask, one_thread, stop_after
from training.export import ExportOptions, Judges, export_bundle
from training.initial import best_weights, read_initial
from training.job import is_finished
from training.loop.checkpoint import load_checkpoint
from training.recipes import lightm_unet_2d, lightm_unet_3d, small_segmamba
from training.run import resume, run
from training.runs.run_folder import RunFolder

Said = tuple[RunFolder, str]


def heard() -> Console:
    return Console(record=True, width=400, force_terminal=False)


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    one_thread()
    return write_brats_dataset(tmp_path_factory.mktemp("brains"), cases=3, shape=(36, 34, 32))


@pytest.fixture(scope="module")
def glioma(brains: Path, tmp_path_factory: pytest.TempPathFactory) -> Said:
    """A finished BraTS run that was stopped after its first step and continued."""
    results, console = tmp_path_factory.mktemp("results"), heard()
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 1)
        run(small_segmamba(), ask(brains, results), console, settings=SEGMAMBA)
    folder = RunFolder(results / "run")
    assert load_checkpoint(folder.last)["step"] == 1
    assert not is_finished(folder)
    resume({}, ask(brains, results), console)
    return folder, console.export_text()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Said:
    one_thread()
    data = write_png_dataset(tmp_path_factory.mktemp("pictures"), cases=4, size=32)
    request, console = ask(data, tmp_path_factory.mktemp("results")), heard()
    settings = {**LIGHTM, "patch": [1, 32, 32]}
    return run(lightm_unet_2d(), request, console, settings=settings), console.export_text()


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Said:
    one_thread()
    data = write_nifti_dataset(tmp_path_factory.mktemp("volumes"), cases=4, shape=(24, 24, 10))
    request, console = ask(data, tmp_path_factory.mktemp("results")), heard()
    settings = {**LIGHTM, "patch": [16, 16, 16]}
    return run(lightm_unet_3d(), request, console, settings=settings), console.export_text()


def scores_of(folder: RunFolder) -> dict[str, Any]:
    (case,) = json.loads(folder.final_metrics.read_text())["cases"]
    regions: dict[str, Any] = case["regions"]
    return regions


def test_a_run_leaves_everything_that_is_promised(glioma: Said) -> None:
    folder, said = glioma
    promised = (
        "config.json", "split.json", "dataset.json", "environment.json", "request.json",
        "report.html", "logs/log.txt", "logs/metrics.jsonl", "checkpoints/best.pt",
        "checkpoints/last.pt", "plots/training_curves.png", "metrics/final_metrics.json",
        "bundle/card.json",
    )  # fmt: skip
    for name in promised:
        assert (folder.path / name).stat().st_size > 0, name
    for words in ("stopped", "continuing after step 1", "2 steps in", "bundle written", "report"):
        assert words in said, words
    assert is_finished(folder)


def test_the_scores_are_those_of_the_kept_predictions(glioma: Said, brains: Path) -> None:
    folder, said = glioma
    (name,) = json.loads(folder.split.read_text())["validation"]
    (kept,) = (folder.predictions / "raw").iterdir()
    assert kept.name == f"{name}.nii.gz"
    image = read_nifti(brains / name / f"{name}_t1.nii.gz", argument="t1")
    predicted, _ = read_label_map(kept, argument="prediction", on=image.grid)
    truth, _ = read_label_map(brains / name / f"{name}_seg.nii.gz", argument="seg", on=image.grid)
    scores = scores_of(folder)
    for region, labels in {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}.items():
        expected = dice(np.isin(predicted, labels), np.isin(truth, labels))
        assert scores[region]["dice"] == pytest.approx(expected), region
    line = " · ".join(f"{region} {score['dice']:.3f}" for region, score in scores.items())
    assert f"case 1 · {line}" in said


def test_the_bundle_is_the_best_average_and_its_card_tells_where_from(glioma: Said) -> None:
    folder, _ = glioma
    bundle, best = load_bundle(folder.path / "bundle"), best_weights(folder)
    for name, value in bundle.network.state_dict().items():
        assert torch.equal(value, best["weights"][name]), name
    card = bundle.card
    assert (card.name, card.heads, card.window) == ("run", "regions", (32, 32, 32))
    assert (card.label_scheme, card.training.data) == ("brats2021", "2 labelled studies")
    assert card.training.model_extra is not None
    assert card.training.model_extra["config"] == json.loads(folder.config.read_text())
    evaluation: Any = card.metrics["evaluation"]
    assert evaluation["cases"] == json.loads(folder.final_metrics.read_text())["cases"]


def test_no_name_of_a_case_leaves_the_run(glioma: Said) -> None:
    folder, said = glioma
    for path in ("bundle/card.json", "logs/log.txt", "logs/metrics.jsonl", "report.html"):
        assert "tiny_0" not in (folder.path / path).read_text(), path
        assert str(folder.path) not in (folder.path / path).read_text(), path
    assert "tiny_0" not in said
    assert "tiny_0" in folder.split.read_text()


def test_a_second_run_of_that_name_is_refused(glioma: Said, brains: Path) -> None:
    before = glioma[0].config.read_bytes()
    with pytest.raises(OptionError, match="--resume"):
        run(small_segmamba(), ask(brains, glioma[0].path.parent), settings=SEGMAMBA)
    assert glioma[0].config.read_bytes() == before


def test_a_finished_run_is_left_alone(glioma: Said, brains: Path) -> None:
    folder, console = glioma[0], heard()
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()}
    resume({}, ask(brains, folder.path.parent), console)
    assert "run is finished" in console.export_text()
    after = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()}
    assert after == before


def test_an_export_is_judged_as_its_card_says(glioma: Said, brains: Path, tmp_path: Path) -> None:
    """With a correction that removes every tumour, the scores are those of an empty map."""
    folder, _ = glioma
    before = folder.final_metrics.read_bytes()
    remove = {"name": "remove_small_components", "params": {"region": "WT", "min_mm3": 1e9}}
    options = ExportOptions(settings={"postprocess": [remove]}, found={"gain": 0.1}, half=True)
    request = ask(brains, tmp_path)
    dataset = request.dataset()
    judges = Judges(dataset=dataset, cases=dataset.labelled[:1])
    evaluation = export_bundle(folder, tmp_path / "empty", options=options, judges=judges)
    assert evaluation is not None
    card = load_bundle(tmp_path / "empty").card
    metrics: Any = card.metrics
    (case,) = metrics["evaluation"]["cases"]
    assert {score["dice"] for score in case["regions"].values()} == {0.0}
    assert metrics["corrections"] == {"gain": 0.1}
    assert metrics["evaluation"]["corrected"] is True
    assert folder.final_metrics.read_bytes() == before, "an export changes nothing in the run"


def test_an_export_says_which_scores_are_not_its_own(glioma: Said, tmp_path: Path) -> None:
    options = ExportOptions(settings={"overlap": 0.5})
    assert export_bundle(glioma[0], tmp_path / "b", options=options) is None
    metrics: Any = load_bundle(tmp_path / "b").card.metrics
    assert "were changed at the export" in metrics["evaluation"]["what"]
    with pytest.raises(OptionError, match="window, overlap, postprocess"):
        export_bundle(glioma[0], tmp_path / "c", options=ExportOptions(settings={"batch": 7}))


def test_a_run_begins_where_another_ended(glioma: Said, brains: Path, tmp_path: Path) -> None:
    """With a learning rate of next to nothing its weights are still those it began from."""
    folder, _ = glioma
    settings = {**SEGMAMBA, "steps": 1, "learning_rate": 1e-12, "weight_decay": 0}
    request = ask(brains, tmp_path, initial=str(folder.path))
    later = run(small_segmamba(), request, settings=settings)
    assert json.loads(later.config.read_text())["initial"] == read_initial(folder.path).fingerprint
    began, ended = best_weights(folder)["weights"], best_weights(later)["weights"]
    for name in began:
        torch.testing.assert_close(ended[name], began[name], msg=name)
    data: Any = load_bundle(later.path / "bundle").card.training.data
    assert "begun from weights sha256:" in data


def test_pictures_are_predicted_as_pictures_in_file_values(pictures: Said) -> None:
    folder, said = pictures
    (kept,) = (folder.predictions / "raw").iterdir()
    values = np.asarray(Image.open(kept))
    assert kept.suffix == ".png"
    assert values.shape == (32, 32)
    assert set(np.unique(values)) <= {0, 1}
    assert scores_of(folder).keys() == {"blob"}
    assert "no bundle" in said
    assert not (folder.path / "bundle").exists()
    with pytest.raises(OptionError, match="segmamba predict"):
        export_bundle(folder, folder.path.parent / "bundle")


def test_volumes_are_planned_and_predicted_on_their_own_grid(volumes: Said) -> None:
    folder, said = volumes
    plan = json.loads((folder.path / "plan.json").read_text())
    config = json.loads(folder.config.read_text())
    assert config["spacing_mm"] == plan["spacing_mm"]["value"]
    assert plan["spacing_mm"]["reason"] in said
    assert config["patch"] == [16, 16, 16], "what the user sets wins over the plan"
    (name,) = json.loads(folder.split.read_text())["validation"]
    data = Path(json.loads((folder.path / "request.json").read_text())["data"])
    image = read_nifti(data / "imagesTr" / f"{name}_0000.nii.gz", argument="image")
    kept = read_nifti(folder.predictions / "raw" / f"{name}.nii.gz", argument="labels")
    assert kept.shape == image.shape
    np.testing.assert_allclose(kept.affine, image.affine, atol=1e-4)
    assert scores_of(folder).keys() == {"rim", "core"}


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(
    brains: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    request = ask(brains, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("training.job.prepare_cases", killed)
        with pytest.raises(KeyboardInterrupt):
            run(small_segmamba(), request, settings=SEGMAMBA)
    folder = resume({"steps": 1}, request)
    assert is_finished(folder)
    assert load_checkpoint(folder.last)["step"] == 1


def test_a_finished_run_that_is_extended_goes_on_after_an_interruption_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    one_thread()
    request = ask(write_png_dataset(tmp_path, cases=2, size=32), tmp_path / "results")
    run(lightm_unet_2d(), request, settings={**LIGHTM, "patch": [1, 32, 32], "steps": 1})
    with monkeypatch.context() as patch:
        patch.setattr("training.job.prepare_cases", killed)
        with pytest.raises(KeyboardInterrupt):
            resume({"steps": 2}, request)
    folder = RunFolder(tmp_path / "results" / "run")
    assert not is_finished(folder)
    resume({"steps": 2}, request)
    assert is_finished(folder)
    assert load_checkpoint(folder.last)["step"] == 2


def test_other_data_than_the_runs_is_refused(glioma: Said, tmp_path: Path) -> None:
    other = write_brats_dataset(tmp_path / "other", cases=1, shape=(16, 16, 16))
    with pytest.raises(OptionError, match="cases"):
        resume({"steps": 9}, ask(other, glioma[0].path.parent))
