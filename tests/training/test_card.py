"""The card says what the weights are, whatever subset, order, heads or normalisation they had."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from model_core.checkpoints import CardDraft, load_bundle
from model_core.networks import build_network
from training.card import draft_card, measured, why_no_bundle
from training.config import TrainConfig
from training.export import export_bundle
from training.loop.checkpoint import save_checkpoint
from training.recipes import RECIPES, brtm_segmamba, lightm_unet_2d, recipe, small_segmamba
from training.runs.run_folder import RunFolder, write_json
from training.task import BRATS, Task

TINY = {"network_args": {"depths": [1, 0, 0, 0], "features": [4, 4, 4, 4], "hidden": 4}}
FACTS = {"step": 5, "elapsed": 90.0}


def run_of(
    config: TrainConfig,
    folder: Path,
    *,
    value: int = 4,
    training: tuple[str, ...] = ("patient a", "patient b"),
) -> RunFolder:
    """A run that has just saved its best weights; ET is `value` in its data's files."""
    run = RunFolder.create(folder, "run")
    write_json(run.config, config.to_json())
    write_json(run.split, {"training": list(training), "validation": []})
    values = {"0": 0, "1": 1, "2": 2, str(value): 3}
    write_json(run.path / "dataset.json", {"values": values})
    weights = build_network(config.network, **config.network_args).state_dict()
    save_checkpoint(run.best, {"config": config.to_json(), "weights": weights, **FACTS})
    return run


def card_of(config: TrainConfig, run: RunFolder) -> CardDraft:
    network = build_network(config.network, **config.network_args)
    return draft_card(run, network, config, FACTS, name="m", version="1", metrics={})


def test_a_subset_of_channels_in_another_order_reaches_card_network_and_words(
    tmp_path: Path,
) -> None:
    config = small_segmamba().with_settings({**TINY, "task.channels": ["flair", "t1ce"]})
    run = run_of(config, tmp_path)
    export_bundle(run, tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.card.channels == ("flair", "t1ce")
    assert bundle.network.in_channels == 2
    assert "T1ce and FLAIR images" in bundle.card.intended_use


def test_label_heads_and_brain_wide_normalisation_reach_the_card(tmp_path: Path) -> None:
    settings = {**TINY, "task.heads": "labels", "normalisation": "zscore-brain"}
    config = small_segmamba().with_settings({**settings, "orientation": "RAS"})
    card = card_of(config, run_of(config, tmp_path))
    assert (card.heads, card.outputs) == ("labels", ("background", "NCR", "ED", "ET"))
    assert (card.normalisation, card.orientation) == ("zscore-brain", "RAS")
    assert card.network["out_channels"] == 4


def test_the_authors_order_of_channels_is_kept(tmp_path: Path) -> None:
    config = recipe("paper-segmamba").with_settings({**TINY, "precision": "float32"})
    card = card_of(config, run_of(config, tmp_path))
    assert card.channels == ("t2", "flair", "t1", "t1ce")
    assert (card.normalisation, card.heads) == ("zscore-box", "labels")


@pytest.mark.parametrize(("value", "scheme"), [(4, "brats2021"), (3, "brats2023")])
def test_labels_are_numbered_as_in_the_training_data(
    tmp_path: Path, value: int, scheme: str
) -> None:
    config = small_segmamba().with_settings(TINY)
    assert card_of(config, run_of(config, tmp_path, value=value)).label_scheme == scheme


def test_words_name_the_data_the_network_and_everything_made_up(tmp_path: Path) -> None:
    config = small_segmamba().with_settings(
        {**TINY, "phantoms": 3, "synthetic": 4, "initial": "sha256:12"}
    )
    public = ("BraTS2021_00001", "BraTS2021_00002")
    card = card_of(config, run_of(config, tmp_path, training=public))
    assert card.training.data == (
        "2 cases of the BraTS 2021 training set and 3 generated phantoms and 4 synthetic studies; "
        "begun from weights sha256:12"
    )
    assert card.licence.startswith("not stated"), "the first weights' licence is not known"
    assert "2401.13560" in card.citation
    assert "BraTS 2021" in card.citation


def test_private_names_become_numbers(tmp_path: Path) -> None:
    config = small_segmamba().with_settings(TINY)
    card = card_of(config, run_of(config, tmp_path))
    facts: Any = card.training.model_extra
    assert facts["cases"] == ("case 1", "case 2")
    assert "patient a" not in card.model_dump_json()


def test_every_network_has_a_citation_and_a_card(tmp_path: Path) -> None:
    settings = {"network_args": {"base_channels": 4}, "precision": "float32", "patch": [16] * 3}
    config = brtm_segmamba().with_settings(settings)
    assert "BraTSMamba" in card_of(config, run_of(config, tmp_path)).citation


def test_flips_decide_the_mirror_axes(tmp_path: Path) -> None:
    config = small_segmamba().with_settings({**TINY, "augmentation.flip": 0})
    assert card_of(config, run_of(config, tmp_path)).mirror_axes == ()


@pytest.mark.parametrize("name", RECIPES)
def test_every_3d_recipe_makes_a_bundle_of_glioma(name: str) -> None:
    assert (why_no_bundle(recipe(name)) is None) == (recipe(name).task.dims == 3)


def test_what_no_bundle_holds_is_told_apart() -> None:
    small = small_segmamba()
    other = dataclasses.replace(small, task=Task(channels=("CT",), labels=("liver",)))
    reasons = [
        why_no_bundle(other),
        why_no_bundle(lightm_unet_2d()),
        why_no_bundle(dataclasses.replace(small, normalisation="none")),
        why_no_bundle(dataclasses.replace(small, spacing_mm=None)),
    ]
    assert all(reasons)
    assert len(set(reasons)) == 4
    assert why_no_bundle(dataclasses.replace(small, task=BRATS)) is None


def test_scores_that_the_cards_pipeline_did_not_give_are_marked() -> None:
    evaluation = {"cases": [1]}
    assert measured(None, evaluation, as_carded=True) == {"evaluation": {"cases": [1]}}
    marked = measured({"score": 0.5}, evaluation, as_carded=False)
    assert "not in these scores" in marked["evaluation"]["what"]
    assert marked["selection"]["score"] == 0.5
    assert evaluation == {"cases": [1]}


def test_a_single_validation_is_not_said_to_have_selected() -> None:
    words = [measured({}, None, as_carded=True, validations=n)["selection"] for n in (1, 2)]
    assert "selected nothing" in words[0]["what"]
    assert "judge them kindly" in words[1]["what"]


def test_half_precision_rounds_the_stored_weights_and_loads_as_float32(tmp_path: Path) -> None:
    from training.export import ExportOptions

    config = small_segmamba().with_settings(TINY)
    run = run_of(config, tmp_path)
    export_bundle(run, tmp_path / "half", options=ExportOptions(half=True))
    whole = torch.load(run.best, weights_only=True)["weights"]
    for name, value in load_bundle(tmp_path / "half").network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, whole[name].half().float()), name
