"""A results folder written in nnU-Net's format becomes a bundle that says what the folder says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from model_core.checkpoints import load_bundle
from model_core.checkpoints.nnunet import NnunetOptions, import_nnunet
from model_core.errors import BundleError, CheckpointError, OptionError
from model_core.networks import build_network
from model_core.networks.upstream_keys import key_map
from tests.training.nnunet.folders import (
    LABELS,
    PLANS,
    RESULTS,
    SEGMAMBA,
    checkpoint,
    corrections,
    network,
    write_results,
)

Run = Callable[..., Result]


@pytest.fixture
def segmamba(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line as a user would."""
    from model_core.cli.main import app

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("SEGMAMBA_DEBUG", raising=False)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


def test_the_card_says_what_the_folder_says(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    import_nnunet(folder, tmp_path / "bundle")
    card = load_bundle(tmp_path / "bundle").card
    assert card.family == "segmamba"
    assert card.channels == ("t1", "t1ce", "t2", "flair")
    assert (card.heads, card.outputs) == ("regions", ("WT", "TC", "ET"))
    assert (card.orientation, card.spacing_mm) == ("SPL", (1.0, 1.0, 1.0))
    assert (card.window, card.overlap) == ((32, 48, 64), 0.5)
    assert card.normalisation == "zscore-brain"
    assert (card.mirror_axes, card.tta) == ((0, 1, 2), "full")
    assert (card.tiling, card.region_rule) == ("nnunet", "painted")
    assert card.training.recipe == "nnUNetTrainerSegMamba"
    assert card.training.model_extra is not None
    assert card.training.model_extra["fold"] == "0"
    assert card.postprocess == ()


def test_the_weights_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    import_nnunet(write_results(tmp_path), tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle").network
    assert loaded.num_slices is None
    image = torch.rand(1, 4, 32, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(image), network().eval()(image))


def test_the_parent_will_do_where_it_holds_one_training(tmp_path: Path) -> None:
    write_results(tmp_path / "Dataset137_BraTS2021")
    import_nnunet(tmp_path / "Dataset137_BraTS2021", tmp_path / "bundle")
    write_results(tmp_path / "Dataset137_BraTS2021", name="nnUNetTrainer__nnUNetPlans__2d")
    with pytest.raises(OptionError, match="got 2 of them: nnUNetTrainer"):
        import_nnunet(tmp_path / "Dataset137_BraTS2021", tmp_path / "second")


@pytest.mark.parametrize(
    ("folds", "asked", "taken"),
    [
        (("0", "1", "all"), None, "all"),
        (("0", "1"), None, "0"),
        (("0", "1"), "1", "1"),
        (("0", "1"), "fold_1", "1"),
    ],
)
def test_the_fold_of_all_cases_comes_first(
    tmp_path: Path, folds: tuple[str, ...], asked: str | None, taken: str
) -> None:
    folder = write_results(tmp_path, folds=folds)
    imported = import_nnunet(folder, tmp_path / "bundle", NnunetOptions(fold=asked))
    assert imported.fold == taken


def test_a_fold_that_was_not_trained_is_refused_with_those_that_were(tmp_path: Path) -> None:
    folder = write_results(tmp_path, folds=("2", "3"))
    with pytest.raises(OptionError, match="trained: 2, 3, got all or 0"):
        import_nnunet(folder, tmp_path / "bundle")
    with pytest.raises(OptionError, match="trained: 2, 3, got 4"):
        import_nnunet(folder, tmp_path / "bundle", NnunetOptions(fold="4"))


def test_an_unfinished_training_gives_its_best_weights_and_says_so(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    final = folder / "fold_0" / "checkpoint_final.pth"
    final.rename(final.with_name("checkpoint_best.pth"))
    imported = import_nnunet(folder, tmp_path / "bundle")
    assert any("checkpoint_best.pth" in warning for warning in imported.warnings)
    with pytest.raises(OptionError, match=r"checkpoint_final\.pth, got none"):
        import_nnunet(folder, tmp_path / "second", NnunetOptions(which="final"))


def test_an_orientation_that_nobody_told_is_doubted(tmp_path: Path) -> None:
    def doubts(folder: Path, out: str, stored: str | None = None) -> list[str]:
        imported = import_nnunet(folder, tmp_path / out, NnunetOptions(stored=stored))
        return [warning for warning in imported.warnings if "--stored" in warning]

    folder = write_results(tmp_path)
    (doubt,) = doubts(folder, "assumed")
    assert "LPS" in doubt
    assert doubts(folder, "told", stored="LPS") == []
    plans = copy.deepcopy(PLANS) | {"image_reader_writer": "NibabelIOWithReorient"}
    assert doubts(write_results(tmp_path / "turning", plans=plans), "turned") == []


def test_another_network_is_refused_by_the_name_of_its_class(tmp_path: Path) -> None:
    weights = {"encoder.stages.0.0.convs.0.conv.weight": torch.zeros(32, 4, 3, 3, 3)}
    folder = write_results(tmp_path, content=checkpoint(weights, trainer="nnUNetTrainer"))
    with pytest.raises(CheckpointError, match=r"PlainConvUNet \(trainer nnUNetTrainer\)"):
        import_nnunet(folder, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_the_lightm_unet_authors_own_trainer_is_taken(tmp_path: Path) -> None:
    """Its tensors bear the authors' names; labels instead of regions."""
    torch.manual_seed(0)
    ours = build_network(
        "lightm-unet", out_channels=4, init_filters=8, blocks_down=(1, 1), blocks_up=(1,)
    )
    tensors = ours.state_dict()
    theirs = {name: tensors[key] for name, key in key_map("lightm-unet", tensors).items()}
    content = checkpoint(theirs, trainer="nnUNetTrainerLightMUNet", mirror=None)
    folder = write_results(tmp_path, dataset=LABELS, content=content)
    imported = import_nnunet(folder, tmp_path / "bundle")
    assert imported.card.outputs == ("background", "ED", "NCR", "ET")
    assert (imported.card.mirror_axes, imported.card.tta) == ((), "none")
    assert any("1 ED, 2 NCR, 3 ET" in warning for warning in imported.warnings)
    loaded = load_bundle(tmp_path / "bundle").network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_the_authors_segmamba_keeps_its_slices(tmp_path: Path) -> None:
    """A checkpoint in the authors' names was trained with the slices that they hard-code."""
    tensors = network().state_dict()
    theirs = {name: tensors[key] for name, key in key_map("segmamba", tensors).items()}
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["3d_small"]["patch_size"] = [64, 64, 64]
    folder = write_results(tmp_path, plans=plans, content=checkpoint(theirs))
    import_nnunet(folder, tmp_path / "bundle")
    assert load_bundle(tmp_path / "bundle").network.num_slices == (64, 32, 16, 8)


def test_a_patch_that_the_network_cannot_take_is_refused(tmp_path: Path) -> None:
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["3d_small"]["patch_size"] = [40, 48, 64]
    with pytest.raises(BundleError, match=r"multiples of 16, got \(40, 48, 64\)"):
        import_nnunet(write_results(tmp_path, plans=plans), tmp_path / "bundle")


def test_code_in_a_checkpoint_is_refused_and_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    content = checkpoint(dict(network().state_dict())) | {"logging": Evil()}
    folder = write_results(tmp_path, content=content)
    with pytest.raises(CheckpointError, match="code or objects"):
        import_nnunet(folder, tmp_path / "bundle")
    assert not (tmp_path / "ran").exists()


def test_the_pickled_corrections_are_never_opened(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    found = folder / "crossval_results_folds_0_1_2_3_4"
    found.mkdir()
    (found / "postprocessing.pkl").write_bytes(b"not even a pickle")
    (found / "postprocessing.json").write_text(json.dumps(corrections([1, 2, 3], 3)))
    imported = import_nnunet(folder, tmp_path / "bundle")
    steps = [(step.name, step.params) for step in imported.card.postprocess]
    assert steps == [
        ("keep_largest_of", {"names": ["ED", "ET", "NCR"]}),
        ("keep_largest_of", {"names": ["ET"]}),
    ]
    assert not any("post-processing" in warning for warning in imported.warnings)
    none = import_nnunet(folder, tmp_path / "none", NnunetOptions(postprocess="none"))
    assert none.card.postprocess == ()


def test_nnunets_own_scores_are_kept_by_region(tmp_path: Path) -> None:
    folder = write_results(tmp_path, folds=("0", "all"))
    for fold in ("0", "all"):
        (folder / f"fold_{fold}" / "validation").mkdir()
        mean = {"(1, 2, 3)": {"Dice": 0.9}, "(2, 3)": {"Dice": 0.8}, "3": {"Dice": float("nan")}}
        summary = folder / f"fold_{fold}" / "validation" / "summary.json"
        summary.write_text(json.dumps({"mean": mean, "metric_per_case": [{"secret": "a name"}]}))
    first = import_nnunet(folder, tmp_path / "first", NnunetOptions(fold="0"))
    scores: Any = first.card.metrics["nnunet_validation"]
    assert scores["dice"] == {"WT": 0.9, "TC": 0.8}
    # The network of all cases was judged by cases that it had learnt.
    assert import_nnunet(folder, tmp_path / "all").card.metrics == {}


def test_a_card_may_add_but_not_contradict(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    given = tmp_path / "card.json"
    given.write_text(json.dumps({"licence": "CC BY 4.0", "name": "ours"}))
    imported = import_nnunet(folder, tmp_path / "bundle", NnunetOptions(card=given))
    assert (imported.card.licence, imported.card.name) == ("CC BY 4.0", "ours")
    given.write_text(json.dumps({"spacing_mm": [2.0, 1.0, 1.0]}))
    with pytest.raises(BundleError, match="spacing_mm"):
        import_nnunet(folder, tmp_path / "second", NnunetOptions(card=given))
    given.write_text(json.dumps({"colour": "blue"}))
    with pytest.raises(BundleError, match="colour"):
        import_nnunet(folder, tmp_path / "second", NnunetOptions(card=given))
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("content", ["", "[]", None])
def test_a_damaged_description_is_refused_by_its_name(tmp_path: Path, content: str | None) -> None:
    folder = write_results(tmp_path)
    (folder / "dataset.json").write_text(content or "")
    with pytest.raises(OptionError, match=r"dataset\.json: expected a JSON object"):
        import_nnunet(folder, tmp_path / "bundle")


def test_another_file_by_that_name_is_refused(tmp_path: Path) -> None:
    folder = write_results(tmp_path, content={"network_weights": {}})
    with pytest.raises(CheckpointError, match="not a checkpoint of nnU-Net v2"):
        import_nnunet(folder, tmp_path / "bundle")


def test_the_command_imports_a_folder_and_says_what_it_left_out(
    segmamba: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_results(tmp_path)
    (tmp_path / "pp.json").write_text(json.dumps(corrections([1, 2, 3], function="my_trick")))
    monkeypatch.chdir(tmp_path)
    done = segmamba("import", folder, "--postprocess", "pp.json", "--stored", "RAS")
    assert done.exit_code == 0, done.output
    assert "warning: post-processing" in done.stderr
    card = load_bundle(tmp_path / "dataset137_brats2021-segmamba").card
    assert card.orientation == "SAR"
    assert card.postprocess == ()


def test_the_command_refuses_what_is_no_results_folder(segmamba: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = segmamba("import", tmp_path / "empty", "-o", tmp_path / "bundle")
    assert done.exit_code == 2
    assert "TRAINER__PLANS__CONFIGURATION" in done.stderr
    done = segmamba("import", write_results(tmp_path), "--checkpoint", "latest")
    assert done.exit_code == 2
    assert "final or best" in done.stderr


def test_a_checkpoint_file_alone_still_wants_a_card(segmamba: Run, tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "w.pth")
    done = segmamba("import", tmp_path / "w.pth")
    assert done.exit_code == 2
    assert "--card" in done.stderr


def test_the_name_of_the_folder_is_the_name_of_the_bundle(tmp_path: Path) -> None:
    imported = import_nnunet(write_results(tmp_path), tmp_path / "My Model")
    assert imported.card.name == "my-model"
    assert RESULTS not in imported.card.model_dump_json()
    assert SEGMAMBA["features"] == tuple(imported.card.network["features"])  # type: ignore[arg-type]
