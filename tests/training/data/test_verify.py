"""Every broken case is found in one pass, and what is said about it is what is wrong with it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from model_core.imaging import Volume, read_nifti, write_nifti
from tests.training.tiny import write_brats_dataset, write_nifti_dataset, write_png_dataset
from training.data.find import load_dataset
from training.data.verify import Verification, verify


def check(root: Path, workers: int = 1) -> Verification:
    return verify(load_dataset(root, strict=False), workers=workers)


def found(result: Verification) -> set[tuple[str, str, bool]]:
    return {(problem.case, problem.kind, problem.error) for problem in result.problems}


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    old = read_nifti(path, argument="x")
    write_nifti(path, Volume(change(old.array.copy()), old.affine))


def with_nan(path: Path) -> None:
    old = nibabel.load(path)
    array = np.asarray(old.dataobj, np.float32).copy()
    array[3, 3, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, old.affine), path)


@pytest.mark.parametrize("write", [write_png_dataset, write_nifti_dataset, write_brats_dataset])
def test_a_sound_data_set_has_no_problems(tmp_path: Path, write: Callable[..., Path]) -> None:
    result = check(write(tmp_path, cases=3))
    assert result.ok
    assert result.problems == ()
    assert result.cases == (3 if write is write_brats_dataset else 5)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_broken_case_is_found_in_one_pass(tmp_path: Path, workers: int) -> None:
    root = write_nifti_dataset(tmp_path, cases=12, shape=(16, 14, 12))

    def image(number: int) -> Path:
        return root / "imagesTr" / f"vol_{number:03d}_0000.nii.gz"

    def label(number: int) -> Path:
        return root / "labelsTr" / f"vol_{number:03d}.nii.gz"

    image(0).write_bytes(image(0).read_bytes()[:-50])
    label(1).unlink()
    with_nan(image(2))
    rewrite(label(3), lambda labels: np.where(labels == 2, 7, labels))
    rewrite(image(4), lambda values: np.full_like(values, 5))
    rewrite(label(5), lambda labels: labels[:-1])
    rewrite(label(6), np.zeros_like)
    shutil.copy(image(7), image(8))
    shutil.copy(label(7), label(8))
    (root / "labelsTr" / "orphan.nii.gz").write_bytes(label(9).read_bytes())
    rewrite(label(10), lambda labels: labels + np.float32(0.5))
    with_nan(label(11))
    (root / "imagesTs" / "vol_013_0000.nii.gz").write_bytes(b"")
    result = check(root, workers)
    assert found(result) == {
        ("vol_000", "unreadable", True),
        ("vol_001", "missing-label", True),
        ("vol_002", "not-finite", True),
        ("vol_003", "values", True),
        ("vol_004", "empty", True),
        ("vol_005", "grid", True),
        ("vol_006", "no-foreground", False),
        ("vol_007", "duplicate", True),
        ("vol_008", "duplicate", True),
        ("vol_010", "values", True),
        ("vol_011", "not-finite", True),
        ("vol_013", "unreadable", True),
        ("orphan", "missing-channel", True),
    }
    texts = {problem.case: problem.text for problem in result.problems}
    assert texts["vol_003"] == "label values 7 of declared 0, 1, 2"
    assert "15×14×12" in texts["vol_005"]
    assert texts["vol_007"] == "the same images as vol_008"
    assert not result.ok
    assert result.to_json()["problems"][0]["case"] == "orphan"


def test_several_things_may_be_wrong_with_one_case(tmp_path: Path) -> None:
    root = write_brats_dataset(tmp_path, cases=2, shape=(20, 20, 16))
    folder = root / "tiny_000"
    (folder / "tiny_000_t2.nii.gz").unlink()
    rewrite(folder / "tiny_000_flair.nii.gz", lambda values: values[:, 1:])
    rewrite(folder / "tiny_000_seg.nii.gz", lambda labels: np.where(labels == 4, 3, labels))
    shutil.copy(root / "tiny_001" / "tiny_001_t1.nii.gz", root / "tiny_001" / "tiny_001_t2.nii.gz")
    result = check(root)
    assert found(result) == {
        ("tiny_000", "missing-channel", True),
        ("tiny_000", "grid", True),
        ("tiny_000", "values", True),
        ("tiny_001", "channels", False),
    }
    texts = [problem.text for problem in result.problems]
    assert "no image for t2" in texts
    assert "t1 and t2 hold the same image" in texts


def test_channels_that_lie_apart_are_told_in_millimetres(tmp_path: Path) -> None:
    root = write_brats_dataset(tmp_path, cases=1, shape=(20, 20, 16))
    path = root / "tiny_000" / "tiny_000_flair.nii.gz"
    old = read_nifti(path, argument="x")
    moved = old.affine.copy()
    moved[2, 3] += 3
    write_nifti(path, Volume(old.array, moved))
    (problem,) = check(root).problems
    assert problem.text == "flair lies on another grid than t1: 3 mm apart"


def test_channels_in_another_axis_order_are_no_problem(tmp_path: Path) -> None:
    root = write_brats_dataset(tmp_path, cases=1, shape=(20, 20, 16))
    for part in ("t2", "seg"):
        path = root / "tiny_000" / f"tiny_000_{part}.nii.gz"
        write_nifti(path, read_nifti(path, argument="x").reoriented("SAR"))
    assert check(root).problems == ()


def test_a_coloured_picture_for_one_channel_is_told(tmp_path: Path) -> None:
    root = write_png_dataset(tmp_path, cases=2, size=16)
    path = root / "imagesTr" / "png_000_0000.png"
    Image.open(path).convert("RGB").save(path)
    assert found(check(root)) == {("png_000", "channels", True)}


def test_a_description_that_counts_wrong_is_a_warning(tmp_path: Path) -> None:
    root = write_png_dataset(tmp_path, cases=2, size=16)
    content = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({**content, "numTraining": 9}))
    result = check(root)
    assert result.ok
    assert [problem.text for problem in result.problems] == [
        "numTraining is 9, but there are 2 training cases"
    ]


def test_a_missing_channel_of_several_is_named(tmp_path: Path) -> None:
    root = write_nifti_dataset(tmp_path, cases=2, shape=(16, 14, 12))
    content = json.loads((root / "dataset.json").read_text())
    names = {"0": "MRI", "1": "PET"}
    (root / "dataset.json").write_text(json.dumps({**content, "channel_names": names}))
    for path in sorted(root.glob("images*/*_0000.nii.gz"))[1:]:
        volume = read_nifti(path, argument="x")
        other = Volume(volume.array[::-1] + 1, volume.affine)
        write_nifti(path.with_name(path.name.replace("_0000", "_0001")), other)
    assert [(p.case, p.text) for p in check(root).problems] == [("vol_000", "no image for PET")]


def test_progress_is_told_case_by_case(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    data = load_dataset(write_png_dataset(tmp_path, cases=2, size=16))
    verify(dataclasses.replace(data, test=()), progress=lambda *step: told.append(step))
    assert told == [("verify", 1, 2), ("verify", 2, 2)]
