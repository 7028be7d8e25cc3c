"""Files in, arrays out, and back: values, grids, channels."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from model_core.errors import ImageError, StudyError
from model_core.imaging import Volume, prepare_labels, read_nifti, write_nifti
from model_core.imaging.declared import declared_scheme
from tests.training.tiny import (
    LPS,
    oblique,
    write_brats_dataset,
    write_nifti_dataset,
    write_png_dataset,
)
from training.data.dataset import CaseFiles, Dataset
from training.data.find import load_dataset
from training.data.images import (
    prepare_images,
    read_images,
    read_labels,
    to_internal,
    undeclared,
    write_labels,
)
from training.recipes import small_segmamba
from training.task import BRATS, Task

SHAPE = (9, 10, 11)


def dataset_of(values: dict[int, int], task: Task | None = None) -> Dataset:
    task = task or Task(channels=("a",), labels=tuple(f"l{n}" for n in range(1, max(values) + 1)))
    return Dataset(name="d", layout="nnunet", task=task, values=values, training=())


# ---------------------------------------------------------------- images


def test_channels_are_found_by_name_whatever_the_files_order(tmp_path: Path) -> None:
    data = load_dataset(write_brats_dataset(tmp_path, cases=1))
    case = data.training[0]
    wanted = dataclasses.replace(BRATS, channels=("flair", "t1ce", "t1", "t2"))
    plain, other = read_images(case, BRATS), read_images(case, wanted)
    for place, name in enumerate(wanted.channels):
        np.testing.assert_array_equal(other[place].array, plain[BRATS.channels.index(name)].array)


def test_a_channel_that_the_case_does_not_show_is_refused_by_name(tmp_path: Path) -> None:
    case = load_dataset(write_nifti_dataset(tmp_path, cases=1)).training[0]
    with pytest.raises(StudyError, match="t1: expected this channel"):
        read_images(case, BRATS)


def test_channels_on_different_grids_are_refused_and_turned_ones_are_turned(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    first, second = (Volume(rng.normal(size=SHAPE).astype(np.float32), LPS) for _ in range(2))
    write_nifti(tmp_path / "0.nii", first)
    write_nifti(tmp_path / "1.nii", second.reoriented("SAR"))
    case = CaseFiles(name="c", images=(tmp_path / "0.nii", tmp_path / "1.nii"))
    task = Task(channels=("a", "b"), labels=("x",))
    images = read_images(case, task)
    np.testing.assert_array_equal(images[1].array, second.array)
    moved = LPS.copy()
    moved[0, 3] = 0.5
    write_nifti(tmp_path / "1.nii", Volume(second.array, moved))
    with pytest.raises(StudyError, match=r"b: expected the grid of a.*0.5 mm away"):
        read_images(case, task)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_four_d_file_holds_its_channels_one_after_another(tmp_path: Path, ending: str) -> None:
    array = np.random.default_rng(0).integers(0, 900, (*SHAPE, 4)).astype(np.int16)
    image = nibabel.Nifti1Image(array, oblique((1, 1, 3), 10))
    image.header.set_slope_inter(2.0, -7.0)
    nibabel.save(image, tmp_path / f"x{ending}")
    expected = nibabel.load(tmp_path / f"x{ending}").get_fdata()
    case = CaseFiles(name="x", images=(tmp_path / f"x{ending}",))
    task = Task(channels=("a", "b", "c", "d"), labels=("x",))
    for place, volume in enumerate(read_images(case, task)):
        np.testing.assert_allclose(volume.array, expected[..., place], rtol=1e-6)
        np.testing.assert_allclose(volume.affine, image.affine, atol=1e-5)
    with pytest.raises(StudyError, match=r"expected 3 channels \(a, b, c\), got 4"):
        read_images(case, Task(channels=("a", "b", "c"), labels=("x",)))


def test_a_four_d_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    array = np.ones((*SHAPE, 2), np.float32)
    raw = nibabel.Nifti1Image(array, LPS).to_bytes()
    task = Task(channels=("a", "b"), labels=("x",))
    for content in (raw[:-5], gzip.compress(raw)[:-5], b"", b"no image" * 100):
        (tmp_path / "x.nii").write_bytes(content)
        with pytest.raises(ImageError, match="images: expected a readable NIfTI"):
            read_images(CaseFiles(name="x", images=(tmp_path / "x.nii",)), task)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_grey_picture_is_one_slice_with_its_values(tmp_path: Path, dtype: type) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (12, 17)).astype(dtype)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    case = CaseFiles(name="x", images=(tmp_path / "x.png",))
    (volume,) = read_images(case, Task(channels=("a",), labels=("x",)))
    assert volume.axcodes == "RAS"
    assert volume.shape == (1, 12, 17)
    np.testing.assert_array_equal(volume.array[0], pixels)


@pytest.mark.parametrize("palette", [False, True])
def test_a_colour_picture_is_three_channels(tmp_path: Path, palette: bool) -> None:
    blocks = np.random.default_rng(0).integers(0, 255, (3, 4, 3)).astype(np.uint8)
    pixels = blocks.repeat(4, 0).repeat(4, 1)
    picture = Image.fromarray(pixels)
    (picture.quantize(12) if palette else picture).save(tmp_path / "x.png")
    case = CaseFiles(name="x", images=(tmp_path / "x.png",))
    images = read_images(case, Task(channels=("R", "G", "B"), labels=("x",)))
    seen = np.stack([volume.array[0] for volume in images], axis=-1)
    np.testing.assert_allclose(seen, pixels, atol=2 if palette else 0)
    with pytest.raises(StudyError, match="expected 1 channels"):
        read_images(case, Task(channels=("grey",), labels=("x",)))


def test_a_picture_that_is_none_or_transparent_is_refused(tmp_path: Path) -> None:
    case = CaseFiles(name="x", images=(tmp_path / "x.png",))
    task = Task(channels=("a",), labels=("x",))
    with pytest.raises(ImageError, match="a: expected a readable picture of one page, got none"):
        read_images(case, task)
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(ImageError, match="a: expected a readable picture"):
        read_images(case, task)
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(ImageError, match="one of mode RGBA"):
        read_images(case, task)


# ---------------------------------------------------------------- labels


def test_declared_values_become_internal_and_others_are_named() -> None:
    data = dataset_of({0: 0, 1: 1, 2: 2, 4: 3})
    values = np.array([[0, 4, 2], [1, 0, 4]], np.float32)
    np.testing.assert_array_equal(to_internal(values, data), [[0, 3, 2], [1, 0, 3]])
    for strange, told in (([3], "3"), ([1.5], "1.5"), ([-1], "-1"), ([70000], "70000")):
        wrong = np.array([*strange, 0, 1, 4], np.float32)
        assert undeclared(wrong, data) == strange
        with pytest.raises(ImageError, match=rf"declared values 0, 1, 2, 4, got also {told}"):
            to_internal(wrong, data)


def test_labels_on_another_grid_are_refused_and_turned_ones_are_turned(tmp_path: Path) -> None:
    data = dataset_of({0: 0, 1: 1})
    values = np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.uint8)
    image = Volume(np.ones(SHAPE, np.float32), LPS)
    write_nifti(tmp_path / "l.nii.gz", Volume(values, LPS).reoriented("PIR"))
    case = CaseFiles(name="c", images=(), label=tmp_path / "l.nii.gz")
    np.testing.assert_array_equal(read_labels(case, data, on=image.grid), values)
    with pytest.raises(ImageError, match="label: expected the grid of its images"):
        read_labels(case, data, on=Volume(image.array[1:], LPS).grid)
    with pytest.raises(StudyError, match="the ground truth"):
        read_labels(dataclasses.replace(case, label=None), data)


def test_a_palette_or_one_bit_picture_is_its_indices(tmp_path: Path) -> None:
    indices = np.random.default_rng(0).integers(0, 2, (8, 9)).astype(np.uint8)
    case = CaseFiles(name="c", images=(), label=tmp_path / "l.png")
    picture = Image.fromarray(indices, mode=None)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    for saved in (picture, Image.fromarray(indices.astype(bool))):
        saved.save(tmp_path / "l.png")
        np.testing.assert_array_equal(read_labels(case, dataset_of({0: 0, 1: 1}))[0], indices)


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii"])
def test_written_volumes_are_the_files_values_on_the_images_grid(tmp_path: Path, name: str) -> None:
    data = load_dataset(write_brats_dataset(tmp_path / "d", cases=1))
    case = data.training[0]
    labels = read_labels(case, data)
    write_labels(tmp_path / name, labels, case, data)
    assert case.label is not None
    written = read_nifti(tmp_path / name, argument="x")
    truth = read_nifti(case.label, argument="x")
    np.testing.assert_array_equal(written.array, truth.array)
    assert set(np.unique(written.array)) == {0, 1, 2, 4}
    assert written.grid.matches(truth.grid, tolerance_mm=0)
    assert nibabel.load(tmp_path / name).get_data_dtype() == np.uint8


@pytest.mark.parametrize(
    ("values", "declared"),
    [
        ({0: 0, 1: 1, 2: 2, 4: 3}, "brats2021"),
        ({0: 0, 1: 1, 2: 2, 3: 3}, "brats2023"),
        ({0: 0, 1: 2, 2: 1, 3: 3}, None),  # as nnU-Net's conversion of BraTS numbers them
    ],
)
def test_a_written_map_of_brats_labels_declares_its_numbering(
    tmp_path: Path, values: dict[int, int], declared: str | None
) -> None:
    data = load_dataset(write_brats_dataset(tmp_path / "d", cases=1))
    labels = read_labels(data.training[0], data)
    renumbered = dataclasses.replace(data, values=values)
    write_labels(tmp_path / "x.nii.gz", labels, data.training[0], renumbered)
    assert declared_scheme(tmp_path / "x.nii.gz") == declared


def test_written_pictures_are_read_back(tmp_path: Path) -> None:
    data = load_dataset(write_png_dataset(tmp_path, cases=1))
    labels = read_labels(data.training[0], data)
    write_labels(tmp_path / "x.png", labels, data.training[0], data)
    back = dataclasses.replace(data.training[0], label=tmp_path / "x.png")
    np.testing.assert_array_equal(read_labels(back, data), labels)
    wide = dataclasses.replace(data, values={0: 0, 700: 1})
    write_labels(tmp_path / "x.png", labels, data.training[0], wide)
    assert set(np.unique(np.asarray(Image.open(tmp_path / "x.png")))) == {0, 700}


def test_labels_of_another_shape_are_not_written(tmp_path: Path) -> None:
    data = load_dataset(write_png_dataset(tmp_path, cases=1))
    with pytest.raises(ImageError, match="shape of the image"):
        write_labels(tmp_path / "x.png", np.zeros((1, 3, 3), np.uint8), data.training[0], data)
    assert not (tmp_path / "x.png").exists()


def test_where_values_share_a_label_the_first_is_written(tmp_path: Path) -> None:
    data = dataset_of({0: 0, 5: 1, 2: 1})
    like = Volume(np.ones(SHAPE, np.float32), LPS)
    write_labels(tmp_path / "x.nii", np.ones(SHAPE, np.uint8), like, data)
    assert (read_nifti(tmp_path / "x.nii", argument="x").array == 5).all()


# ---------------------------------------------------------------- there and back


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    axcodes=st.sampled_from(["RAS", "LPS", "SPL", "PIR", "ALI"]),
    orientation=st.sampled_from(["SPL", "RAS", "IRA"]),
    normalisation=st.sampled_from(["zscore-nonzero", "zscore-brain", "zscore-box", "none"]),
)
def test_labels_come_back_exactly_where_nothing_is_resampled(
    seed: int, axcodes: str, orientation: str, normalisation: str
) -> None:
    rng = np.random.default_rng(seed)
    array = np.zeros((12, 9, 10), np.float32)
    low, high = rng.integers(0, 4, 3), rng.integers(6, 9, 3)
    inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    array[inside] = rng.uniform(1, 9, array[inside].shape)
    labels = np.where(array > 0, rng.integers(0, 4, array.shape), 0).astype(np.uint8)
    affine = oblique((1.0, 0.7, 2.5), degrees=float(rng.uniform(0, 30)))
    image, truth = (Volume(a, affine).reoriented(axcodes) for a in (array, labels))
    config = dataclasses.replace(
        small_segmamba(),
        task=Task(channels=("a",), labels=("x", "y", "z")),
        orientation=orientation,
        spacing_mm=None,
        normalisation=normalisation,
    )
    prepared = prepare_images([image], config)
    there = prepare_labels(truth.array, prepared)
    np.testing.assert_array_equal(prepared.restore_labels(there), truth.array)


def test_labels_come_back_nearly_where_everything_is_resampled(tmp_path: Path) -> None:
    data = load_dataset(write_nifti_dataset(tmp_path, cases=1))
    case = data.training[0]
    images = read_images(case, data.task)
    truth = read_labels(case, data, on=images[0].grid)
    config = dataclasses.replace(
        small_segmamba(), task=data.task, normalisation="zscore-box", spacing_mm=(1.0, 0.8, 0.9)
    )
    prepared = prepare_images(images, config)
    assert prepared.resampled
    back = prepared.restore_labels(prepare_labels(truth, prepared))
    for label in (1, 2):
        both = ((back == label) & (truth == label)).sum()
        assert 2 * both / ((back == label).sum() + (truth == label).sum()) > 0.93
