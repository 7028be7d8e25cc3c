"""The numbers of a data set are those of its voxels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model_core.errors import ImageError, StudyError
from model_core.imaging import Volume, read_nifti, write_nifti
from tests.training.tiny import write_brats_dataset, write_nifti_dataset, write_png_dataset
from training.data.find import load_dataset
from training.data.fingerprint import Fingerprint, make_fingerprint, read_fingerprint


def test_the_numbers_are_those_of_the_voxels(tmp_path: Path) -> None:
    dataset = load_dataset(write_nifti_dataset(tmp_path, cases=3))
    found = make_fingerprint(dataset, workers=2)
    pairs = [
        [read_nifti(path, argument="x").array for path in (case.images[0], case.label)]
        for case in dataset.training
        if case.label is not None
    ]
    inside = np.concatenate([image[labels > 0] for image, labels in pairs]).astype(np.float64)
    (intensity,) = found.intensities
    assert intensity.mean == pytest.approx(inside.mean())
    assert intensity.sd == pytest.approx(inside.std())
    assert (intensity.low, intensity.high) == pytest.approx(np.percentile(inside, (0.5, 99.5)))
    assert found.medians == (np.median(inside),)
    assert (found.cases, found.without_label, found.without_foreground) == (3, 2, 0)
    assert found.median_spacing_mm == (2.5, 1.0, 1.0)  # SPL
    assert found.median_shape == (24, 32, 32)
    assert found.cropped_share == 1
    volumes = [(labels == 1).sum() * 2.5 / 1000 for _, labels in pairs]
    rim = found.labels[0]
    assert (rim.name, rim.cases) == ("rim", 3)
    assert rim.median_ml == pytest.approx(np.median(volumes))
    assert (rim.smallest_ml, rim.largest_ml) == pytest.approx((min(volumes), max(volumes)))
    assert rim.frequency == pytest.approx(sum((labels == 1).sum() for _, labels in pairs) / 73728)


def test_shapes_are_those_of_the_cropped_images(tmp_path: Path) -> None:
    root = write_brats_dataset(tmp_path, cases=1, shape=(30, 28, 24))
    for path in root.glob("*/*.nii.gz"):
        old = read_nifti(path, argument="x")
        padded = np.pad(old.array, ((5, 15), (0, 0), (3, 0)))
        write_nifti(path, Volume(padded, old.affine))
    found = make_fingerprint(load_dataset(root))
    assert found.shapes == ((24, 28, 30),)
    assert found.cropped_share == pytest.approx(30 * 24 / (50 * 27))


def test_the_axes_follow_the_orientation_whatever_the_files_have(tmp_path: Path) -> None:
    root = write_nifti_dataset(tmp_path, cases=1, shape=(16, 12, 10))
    before = make_fingerprint(load_dataset(root))
    for path in root.glob("*Tr/*.nii.gz"):
        write_nifti(path, read_nifti(path, argument="x").reoriented("SAR"))
    assert make_fingerprint(load_dataset(root)) == before
    turned = make_fingerprint(load_dataset(root), orientation="LPS")
    assert turned.shapes == ((16, 12, 10),)
    assert turned.spacings_mm == ((1.0, 1.0, 2.5),)


def test_pictures_are_counted_in_pixels(tmp_path: Path) -> None:
    found = make_fingerprint(load_dataset(write_png_dataset(tmp_path, cases=2, size=40)))
    assert found.pictures
    assert found.orientation == "RAS"
    assert found.median_shape == (1, 40, 40)


def test_a_case_without_foreground_counts_and_gives_its_voxels(tmp_path: Path) -> None:
    root = write_nifti_dataset(tmp_path, cases=1, shape=(12, 10, 8))
    path = root / "labelsTr" / "vol_000.nii.gz"
    old = read_nifti(path, argument="x")
    write_nifti(path, Volume(np.zeros_like(old.array), old.affine))
    found = make_fingerprint(load_dataset(root))
    image = read_nifti(root / "imagesTr" / "vol_000_0000.nii.gz", argument="x").array
    assert found.without_foreground == 1
    assert found.intensities[0].mean == pytest.approx(image.mean(dtype=np.float64))
    assert found.labels[0].cases == 0
    assert found.labels[0].median_ml == 0


def test_many_voxels_are_sampled_and_the_percentiles_hold(tmp_path: Path) -> None:
    root = write_nifti_dataset(tmp_path, cases=1, shape=(64, 64, 64))
    for part in ("imagesTr/vol_000_0000", "labelsTr/vol_000"):
        path = root / f"{part}.nii.gz"
        old = read_nifti(path, argument="x")
        new = np.ones_like(old.array) if "labels" in part else old.array
        write_nifti(path, Volume(new, old.affine))
    (found,) = make_fingerprint(load_dataset(root)).intensities
    image = read_nifti(root / "imagesTr" / "vol_000_0000.nii.gz", argument="x").array
    assert found.mean == pytest.approx(image.mean(dtype=np.float64), rel=0.01)
    assert found.high == pytest.approx(np.percentile(image, 99.5), rel=0.05)


def test_a_fingerprint_survives_its_file_and_names_no_case(tmp_path: Path) -> None:
    found = make_fingerprint(load_dataset(write_nifti_dataset(tmp_path, cases=2)))
    text = json.dumps(found.to_json())
    (tmp_path / "f.json").write_text(text)
    assert read_fingerprint(tmp_path / "f.json") == found
    assert "vol_0" not in text
    for content in ("[]", '{"dataset": 3}', "no json"):
        (tmp_path / "f.json").write_text(content)
        with pytest.raises(StudyError, match="fingerprint"):
            read_fingerprint(tmp_path / "f.json")
    with pytest.raises(StudyError):
        Fingerprint.from_json({})


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    root = write_nifti_dataset(tmp_path, cases=2)
    (root / "imagesTr" / "vol_001_0000.nii.gz").write_bytes(b"")
    with pytest.raises(ImageError):
        make_fingerprint(load_dataset(root), workers=2)
    for path in (root / "imagesTr").iterdir():
        path.unlink()
    for path in (root / "labelsTr").iterdir():
        path.unlink()
    with pytest.raises(StudyError, match="cases with label maps"):
        make_fingerprint(load_dataset(root))
