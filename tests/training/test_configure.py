"""Recipe, then plan, then what the user sets: the later wins, and the plan knows the network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_core.errors import OptionError
from tests.training.tiny import write_brats_dataset, write_png_dataset
from training.configure import configure
from training.data.dataset import Dataset
from training.data.find import load_dataset
from training.recipes import lightm_unet_2d, lightm_unet_3d, paper_segmamba, small_segmamba


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(write_png_dataset(tmp_path_factory.mktemp("png"), cases=3, size=64))


def test_glioma_keeps_the_recipes_sizes_channels_and_no_plan(tmp_path: Path) -> None:
    dataset = load_dataset(write_brats_dataset(tmp_path, cases=2, shape=(24, 24, 24)))
    for recipe in (small_segmamba(), paper_segmamba()):
        assert configure(recipe, dataset).config == recipe
        assert configure(recipe, dataset).plan is None


def test_other_data_is_planned_and_takes_its_own_task(pictures: Dataset) -> None:
    made = configure(lightm_unet_2d(), pictures)
    assert made.plan is not None
    assert made.config.task.channels == ("XRay",)
    assert made.config.task.dims == 2
    assert made.config.patch == made.plan.patch == (1, 64, 64)
    assert made.config.batch == made.plan.batch
    assert made.config.learning_rate == lightm_unet_2d().learning_rate


def test_what_the_user_sets_wins_and_the_plan_knows_the_network(pictures: Dataset) -> None:
    wide = configure(lightm_unet_2d(), pictures)
    settings = {"network_args.init_filters": 8, "patch": [1, 32, 32], "batch": 3}
    narrow = configure(lightm_unet_2d(), pictures, settings=settings)
    assert (narrow.config.patch, narrow.config.batch) == ((1, 32, 32), 3)
    assert narrow.config.network_args["init_filters"] == 8
    assert narrow.plan is not None
    assert wide.plan is not None
    assert narrow.plan.estimate_gb < wide.plan.estimate_gb


def test_a_plan_from_a_file_is_followed_instead_of_a_new_one(
    pictures: Dataset, tmp_path: Path
) -> None:
    made = configure(lightm_unet_2d(), pictures).plan
    assert made is not None
    values = made.to_json()
    values["patch"]["value"] = [1, 48, 40]
    (tmp_path / "plan.json").write_text(json.dumps(values))
    edited = configure(lightm_unet_2d(), pictures, plan=tmp_path / "plan.json")
    assert edited.config.patch == (1, 48, 40)
    with pytest.raises(OptionError, match="plan"):
        configure(lightm_unet_3d(), pictures, plan=tmp_path / "plan.json")
