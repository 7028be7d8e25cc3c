"""What would fail after hours is refused before the first step, by the setting's name."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from model_core.errors import OptionError
from training.checks import check_fit, check_request, disk_warning
from training.config import TrainConfig
from training.data.dataset import CaseFiles, Dataset
from training.loop.options import RunOptions
from training.recipes import lightm_unet_2d, lightm_unet_3d, small_segmamba
from training.request import RunRequest
from training.task import BRATS, Task

XRAY = Task(channels=("XRay",), labels=("blob",))


def request(folder: Path, **more: Any) -> RunRequest:
    return RunRequest(data=folder / "data", results=folder / "results", name="run", **more)


def dataset_of(task: Task, *images: str) -> Dataset:
    case = CaseFiles(name="a", images=tuple(Path(name) for name in images))
    return Dataset(name="d", layout="nnunet", task=task, values={0: 0, 1: 1}, training=(case,))


BRAIN = dataset_of(BRATS, "t1.nii.gz", "t1ce.nii.gz", "t2.nii.gz", "flair.nii.gz")


def argument_of(config: TrainConfig, dataset: Dataset, asked: RunRequest) -> str:
    with pytest.raises(OptionError) as caught:
        check_fit(config, dataset, asked)
    return caught.value.argument


def test_a_taken_bundle_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not exist yet"):
        check_request(request(tmp_path, export=tmp_path))
    check_request(request(tmp_path, export=tmp_path / "new"))


@pytest.mark.parametrize(
    ("more", "argument"),
    [
        ({"fold": "all", "export": Path("new")}, "export"),
        ({"fold": 0, "validation": ("a",)}, "val"),
        ({"options": RunOptions(device="cuda:99")}, "device"),
        ({"options": RunOptions(device="toaster")}, "device"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(
    tmp_path: Path, more: dict[str, Any], argument: str
) -> None:
    with pytest.raises(OptionError) as caught:
        check_request(request(tmp_path, **more))
    assert caught.value.argument == argument


def test_pictures_want_a_2d_recipe_and_volumes_take_either(tmp_path: Path) -> None:
    pictures = dataset_of(XRAY, "a_0000.png")
    volumes = dataset_of(XRAY, "a_0000.nii.gz")
    flat = dataclasses.replace(lightm_unet_2d(), task=dataclasses.replace(XRAY, dims=2))
    deep = dataclasses.replace(lightm_unet_3d(), task=XRAY)
    assert argument_of(deep, pictures, request(tmp_path)) == "recipe"
    check_fit(flat, pictures, request(tmp_path))
    check_fit(flat, volumes, request(tmp_path))
    check_fit(deep, volumes, request(tmp_path))


def test_a_channel_that_the_data_has_not_is_refused(tmp_path: Path) -> None:
    two = dataset_of(dataclasses.replace(BRATS, channels=("t1ce", "flair")), "a", "b")
    assert argument_of(small_segmamba(), two, request(tmp_path)) == "task.channels"
    chosen = small_segmamba().with_settings({"task.channels": ["flair"]})
    check_fit(chosen, two, request(tmp_path))


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"patch": [60, 64, 64]}, "patch"),
        ({"window": [60, 64, 64]}, "window"),
        ({"mixed_patches": [{"patch": [60, 64, 64], "batch": 1, "share": 0.1}]}, "mixed_patches.0"),
        ({"synthetic": 3}, "synthesis"),
    ],
)
def test_settings_that_fail_later_are_refused_now(
    tmp_path: Path, settings: dict[str, Any], argument: str
) -> None:
    config = small_segmamba().with_settings(settings)
    assert argument_of(config, BRAIN, request(tmp_path)) == argument


def test_generated_cases_are_for_glioma_and_need_their_material(tmp_path: Path) -> None:
    other = dataclasses.replace(lightm_unet_3d(), task=XRAY)
    volumes = dataset_of(XRAY, "a_0000.nii.gz")
    for name in ("phantoms", "synthetic"):
        changed = other.with_settings({name: 1})
        assert argument_of(changed, volumes, request(tmp_path)) == name
    empty = request(tmp_path, synthesis=tmp_path)
    assert argument_of(small_segmamba(), BRAIN, empty) == "synthesis"
    (tmp_path / "labels").mkdir()
    (tmp_path / "masks").mkdir()
    wanting = small_segmamba().with_settings({"synthetic": 2})
    assert argument_of(wanting, BRAIN, empty) == "synthesis"


def test_corrections_of_another_tasks_regions_are_refused(tmp_path: Path) -> None:
    steps = [{"name": "keep_largest", "params": {"region": "WT"}}]
    small = small_segmamba().with_settings({"postprocess": steps})
    check_fit(small, BRAIN, request(tmp_path))
    other = dataclasses.replace(lightm_unet_3d(), task=XRAY)
    with pytest.raises(OptionError, match=r"postprocess\[0\]"):
        other.with_settings({"postprocess": steps})


def test_a_bundle_that_cannot_be_is_refused_before_the_training(tmp_path: Path) -> None:
    flat = dataclasses.replace(lightm_unet_2d(), task=dataclasses.replace(BRATS, dims=2))
    assert argument_of(flat, BRAIN, request(tmp_path, export=tmp_path / "new")) == "export"


def test_a_disk_that_is_too_small_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "image.nii.gz"
    image.write_bytes(bytes(5000))
    case = CaseFiles(name="a", images=(image, image))
    usage = namedtuple("usage", "total used free")
    cache = tmp_path / "not" / "yet"
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, 4000))
    assert "--cache" in (disk_warning([case], cache) or "")
    cache.mkdir(parents=True)
    (cache / "prepared").write_bytes(bytes(6000))
    assert disk_warning([case], cache) is None, "what is prepared already needs no room"
