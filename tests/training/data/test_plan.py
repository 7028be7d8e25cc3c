"""A plan suits the data and the memory, says why, and changes a recipe no more than it must."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_core.errors import OptionError
from model_core.imaging import read_nifti
from model_core.networks import build_network
from tests.training.tiny import write_brats_dataset, write_nifti_dataset, write_png_dataset
from training.config import Intensity, TrainConfig
from training.data.dataset import Dataset
from training.data.find import load_dataset
from training.data.fingerprint import Fingerprint, make_fingerprint
from training.data.memory import APPETITES, estimate_gb
from training.data.plan import Plan, apply_plan, make_plan, read_plan
from training.recipes import RECIPES, lightm_unet_2d, paper_segmamba, small_segmamba
from training.task import Region, Task

TASK = Task(channels=("MRI",), labels=("x",))


def dataset_of(task: Task = TASK) -> Dataset:
    return Dataset(name="d", layout="nnunet", task=task, values={0: 0, 1: 1}, training=())


def fingerprint_of(**changed: Any) -> Fingerprint:
    plain = Fingerprint(
        dataset="d", layout="nnunet", channels=("MRI",), pictures=False, orientation="SPL",
        cases=20, without_label=0, without_foreground=0, shapes=((140, 170, 150),) * 20,
        spacings_mm=((1.0, 1.0, 1.0),) * 20, cropped_share=0.4,
        intensities=(Intensity(mean=40, sd=20, low=-60, high=180),), medians=(38.0,), labels=(),
    )  # fmt: skip
    return dataclasses.replace(plain, **changed)


def plan_of(fingerprint: Fingerprint, **changed: Any) -> Plan:
    options: dict[str, Any] = {"dims": 3, "memory_gb": 24.0, "network": "segmamba", **changed}
    return make_plan(dataset_of(), fingerprint, **options)


def test_heads_on_a_large_gpu_get_a_large_patch() -> None:
    plan = plan_of(fingerprint_of())
    assert all(size % 16 == 0 for size in plan.patch)
    assert np.prod(plan.patch) > 96**3
    assert plan.batch == 2
    assert plan.estimate_gb <= 24
    assert plan.spacing_mm == (1.0, 1.0, 1.0)
    assert plan.normalisation == "zscore-brain"


@pytest.mark.parametrize("network", ["segmamba", "segmamba-brtm", "lightm-unet"])
def test_less_memory_means_a_smaller_patch_that_fits_it(network: Any) -> None:
    voxels = []
    for memory in (48.0, 24.0, 12.0, 6.0):
        plan = plan_of(fingerprint_of(), memory_gb=memory, network=network)
        assert plan.estimate_gb <= memory
        assert all(size % APPETITES[network].multiple == 0 for size in plan.patch)
        voxels.append(np.prod(plan.patch) * plan.batch)
    assert voxels == sorted(voxels, reverse=True)
    assert voxels[0] > voxels[-1]


def test_a_narrower_network_has_room_for_more() -> None:
    narrow = plan_of(fingerprint_of(), memory_gb=8.0, network_args={"features": (16, 32, 64, 128)})
    assert np.prod(narrow.patch) > np.prod(plan_of(fingerprint_of(), memory_gb=8.0).patch)


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(OptionError, match="memory_gb"):
        plan_of(fingerprint_of(), memory_gb=1.0)


def test_thick_slices_give_a_flat_patch_and_slices_for_two_dimensions() -> None:
    coronal = fingerprint_of(
        shapes=((320, 24, 320),) * 10, spacings_mm=((0.6, 5.0, 0.6),) * 10, orientation="SPL"
    )
    plan = plan_of(coronal)
    assert plan.orientation == "SPL"
    assert plan.spacing_mm == (0.6, 5.0, 0.6)
    assert plan.patch[1] == 32
    flat = plan_of(coronal, dims=2, network="lightm-unet")
    assert flat.orientation == "PSL"
    assert flat.spacing_mm == (5.0, 0.6, 0.6)
    assert flat.patch == (1, 320, 320)
    assert flat.batch > 2
    assert "P" in flat.reasons["orientation"]


@pytest.mark.parametrize(
    ("changed", "normalisation"),
    [
        ({}, "zscore-brain"),
        ({"cropped_share": 0.8}, "zscore-box"),
        ({"channels": ("CT",)}, "ct"),
        ({"channels": ("ct",), "cropped_share": 0.9}, "ct"),
        ({"channels": ("CT", "PET")}, "zscore-brain"),
        ({"channels": ("noNorm",)}, "none"),
        ({"channels": ("CTA-like contrast",)}, "zscore-brain"),
    ],
)
def test_normalisation_follows_the_channels_names_and_the_cropping(
    changed: dict[str, Any], normalisation: str
) -> None:
    fingerprint = fingerprint_of(**changed)
    plan = plan_of(fingerprint)
    assert plan.normalisation == normalisation
    assert plan.intensities == (fingerprint.intensities if normalisation == "ct" else None)


def test_a_constant_foreground_cannot_scale_ct() -> None:
    flat = (Intensity(mean=1, sd=0, low=1, high=1),)
    plan = plan_of(fingerprint_of(channels=("CT",), intensities=flat))
    assert plan.normalisation == "zscore-box"


def test_pictures_are_for_two_dimensions(tmp_path: Path) -> None:
    dataset = load_dataset(write_png_dataset(tmp_path, cases=3, size=50))
    fingerprint = make_fingerprint(dataset)
    plan = make_plan(dataset, fingerprint, dims=2, memory_gb=8, network="lightm-unet")
    assert plan.patch == (1, 56, 56)
    assert plan.spacing_mm is None
    assert plan.orientation == "RAS"
    with pytest.raises(OptionError, match="dims: expected 2"):
        make_plan(dataset, fingerprint, dims=3, memory_gb=8, network="lightm-unet")
    with pytest.raises(OptionError, match="network: expected one with 2"):
        make_plan(dataset, fingerprint, dims=2, memory_gb=8, network="segmamba")


def test_a_plan_survives_its_file_and_every_choice_has_a_reason(tmp_path: Path) -> None:
    plan = plan_of(fingerprint_of(channels=("CT",)))
    content = plan.to_json()
    for choice in ("orientation", "spacing_mm", "patch", "batch", "normalisation", "estimate_gb"):
        assert len(content[choice]["reason"]) > 10
    (tmp_path / "plan.json").write_text(json.dumps(content))
    assert read_plan(tmp_path / "plan.json") == plan


def test_an_edited_plan_is_taken_and_a_spoilt_one_refused(tmp_path: Path) -> None:
    content = plan_of(fingerprint_of()).to_json()
    content["patch"]["value"] = [64, 96, 80]
    (tmp_path / "plan.json").write_text(json.dumps(content))
    assert read_plan(tmp_path / "plan.json").patch == (64, 96, 80)
    for spoilt in ({**content, "batch": "many"}, {**content, "patch": [1, 2]}, []):
        (tmp_path / "plan.json").write_text(json.dumps(spoilt))
        with pytest.raises(OptionError, match="plan: expected a plan"):
            read_plan(tmp_path / "plan.json")


# ---------------------------------------------------------------- into a recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_brats_data_keep_a_brats_recipe_as_it_is(tmp_path: Path, name: str) -> None:
    dataset = load_dataset(write_brats_dataset(tmp_path, cases=1, shape=(16, 16, 16)))
    config = RECIPES[name]()
    assert apply_plan(config, dataset) == config


def test_brats_data_take_a_plans_sizes_and_keep_the_recipes_channels(tmp_path: Path) -> None:
    dataset = load_dataset(write_brats_dataset(tmp_path, cases=1, shape=(16, 16, 16)))
    plan = plan_of(fingerprint_of())
    config = apply_plan(paper_segmamba(), dataset, plan)
    assert config.task == paper_segmamba().task
    assert (config.patch, config.batch) == (plan.patch, plan.batch)
    assert config.normalisation == "zscore-brain"


def test_other_data_are_planned_on_the_spot(tmp_path: Path) -> None:
    dataset = load_dataset(write_nifti_dataset(tmp_path, cases=3))
    config = apply_plan(small_segmamba(), dataset, memory_gb=8)
    assert config.task == dataclasses.replace(dataset.task, dims=3)
    assert config.task.heads == "labels"
    assert config.patch == (32, 32, 32)
    assert config.spacing_mm == (2.5, 1.0, 1.0)
    assert config.network_args["in_channels"] == 1
    assert config.network_args["out_channels"] == 3
    assert TrainConfig.from_json(config.to_json()) == config


def test_slices_and_pictures_for_the_two_d_recipe(tmp_path: Path) -> None:
    volumes = load_dataset(write_nifti_dataset(tmp_path, cases=2))
    sliced = apply_plan(lightm_unet_2d(), volumes, memory_gb=8)
    assert (sliced.task.dims, sliced.patch) == (2, (1, 32, 32))
    pictures = load_dataset(write_png_dataset(tmp_path, cases=2))
    config = apply_plan(lightm_unet_2d(), pictures, memory_gb=8)
    assert config.orientation == "RAS"
    assert config.spacing_mm is None
    with pytest.raises(OptionError, match="dims"):
        apply_plan(small_segmamba(), pictures, memory_gb=8)


@pytest.mark.parametrize(
    ("recipe", "declared", "heads"),
    [
        (small_segmamba(), "regions", "regions"),
        (small_segmamba(), "labels", "labels"),
        (paper_segmamba(), "regions", "labels"),
    ],
)
def test_heads_are_regions_only_where_both_want_them(
    recipe: TrainConfig, declared: Any, heads: str
) -> None:
    regions = (Region(name="all", labels=(1, 2), paints=1), Region(name="b", labels=(2,), paints=2))
    task = Task(channels=("MRI",), labels=("a", "b"), regions=regions, heads=declared)
    dataset = dataset_of(task)
    config = apply_plan(recipe, dataset, plan_of(fingerprint_of()))
    assert config.task.heads == heads
    assert config.task.regions == regions


def test_a_plan_for_other_dimensions_is_refused() -> None:
    plan = plan_of(fingerprint_of(), dims=2, network="lightm-unet")
    with pytest.raises(OptionError, match="plan: expected one for 3 dimensions"):
        apply_plan(small_segmamba(), dataset_of(), plan)


def test_ct_intensities_reach_the_config(tmp_path: Path) -> None:
    root = write_nifti_dataset(tmp_path, cases=2)
    content = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({**content, "channel_names": {"0": "CT"}}))
    config = apply_plan(small_segmamba(), load_dataset(root), memory_gb=8)
    assert config.normalisation == "ct"
    assert config.intensities is not None
    inside = []
    for number in range(2):
        image = read_nifti(root / "imagesTr" / f"vol_{number:03d}_0000.nii.gz", argument="x")
        label = read_nifti(root / "labelsTr" / f"vol_{number:03d}.nii.gz", argument="x")
        inside.append(image.array[label.array > 0])
    mean = np.concatenate(inside).mean(dtype=np.float64)
    assert config.intensities[0].mean == pytest.approx(mean)


# ---------------------------------------------------------------- the estimate of memory


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "args", "patch"),
    [
        ("segmamba", {"features": (16, 32, 64, 128), "hidden": 256}, (32, 32, 32)),
        ("lightm-unet", {"init_filters": 32}, (1, 64, 64)),
    ],
)
def test_the_estimate_counts_what_the_network_keeps_for_the_backward_pass(
    network: Any, args: dict[str, Any], patch: tuple[int, int, int]
) -> None:
    torch.set_num_threads(1)
    dims = 3 if patch[0] > 1 else 2
    extra = {"spatial_dims": dims} if network == "lightm-unet" else {}
    model = build_network(network, in_channels=4, out_channels=4, **args, **extra)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = model(torch.zeros(1, 4, *patch[3 - dims :]))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    counted = sum(s.nbytes() for place, s in kept.items() if place not in weights) / 1e9
    del scores
    one, two = (
        estimate_gb(network, args, dims=dims, patch=patch, batch=batch)  # type: ignore[arg-type]
        for batch in (1, 2)
    )
    assert (two - one) / 1.25 == pytest.approx(counted, rel=0.1)
