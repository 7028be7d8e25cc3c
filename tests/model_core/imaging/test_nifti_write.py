from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from model_core.errors import ImageError, InputError, OptionError
from model_core.imaging import atomic
from model_core.imaging.nifti import (
    encode_label_map,
    read_label_map,
    read_nifti,
    write_label_map,
    write_nifti,
)
from model_core.imaging.volume import NiftiFrame, Volume
from tests.model_core.imaging.builders import (
    BRATS_AFFINE,
    ORIENTATIONS,
    nifti_bytes,
    oblique_affine,
    random_image,
)

SHAPE = (8, 9, 10)
LABELS = np.random.default_rng(1).integers(0, 4, SHAPE).astype(np.uint8)
SHEARED = np.array([[1, 0.2, 0, 5], [0, 1, 0.1, -7], [0, 0, 2, 3], [0, 0, 0, 1.0]])
GEOMETRY_FIELDS = (
    "sform_code",
    "qform_code",
    "srow_x",
    "srow_y",
    "srow_z",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "xyzt_units",
    "sizeof_hdr",
)


def loaded(data: bytes) -> Any:
    raw = gzip.decompress(data)
    kind = nib.Nifti1Image if raw[344:347] == b"n+1" else nib.Nifti2Image
    return kind.from_bytes(raw)


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"affine": oblique_affine()},
        {"affine": oblique_affine(), "sform_code": 0},
        {"affine": oblique_affine(), "sform_code": 4, "qform_code": 2, "xyzt_units": 10},
        {"affine": SHEARED, "qform_code": 0, "sform_code": 3},
        {"affine": oblique_affine(), "version": 2},
        {"affine": oblique_affine(), "endianness": ">"},
        {"qoffset_x": 0.5},  # two forms that disagree are handed on as they came
        {"pixdim": (-1, 1, 1, 1, 0, 0, 0, 0), "qform_code": 0},
    ],
)  # fmt: skip
def test_the_geometry_of_the_source_is_kept_number_for_number(source: dict[str, Any]) -> None:
    original = nifti_bytes(random_image(SHAPE), **source)
    like = read_nifti(original, argument="t1")
    written = loaded(encode_label_map(LABELS, like=like, scheme="brats2023"))
    before = loaded(original).header
    for field in GEOMETRY_FIELDS:
        np.testing.assert_array_equal(written.header[field], before[field], err_msg=field)
    np.testing.assert_array_equal(written.header["pixdim"][:4], before["pixdim"][:4])
    np.testing.assert_array_equal(written.affine, loaded(original).affine)
    assert written.header.get_zooms() == loaded(original).header.get_zooms()
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj), LABELS)


def test_a_spacing_of_zero_beside_a_sound_sform_is_mended() -> None:
    original = nifti_bytes(
        random_image(SHAPE), oblique_affine(), qform_code=0, pixdim=(0, 0, 0, 0, 0, 0, 0, 0)
    )
    like = read_nifti(original, argument="t1")
    written = loaded(encode_label_map(LABELS, like=like, scheme="brats2023"))
    np.testing.assert_allclose(written.header.get_zooms(), like.spacing_mm, rtol=1e-6)


@pytest.mark.parametrize("scheme", ["brats2021", "brats2023"])
def test_the_file_says_what_its_values_mean(scheme: Any) -> None:
    data = encode_label_map(LABELS, like=Volume(LABELS, BRATS_AFFINE), scheme=scheme)
    image = loaded(data)
    enhancing = {"brats2021": 4, "brats2023": 3}[scheme]
    assert image.header.get_intent()[0] == "label"
    (extension,) = image.header.extensions
    assert extension.get_code() == 6
    table = json.loads(extension.get_content().rstrip(b"\0"))
    assert table["label_scheme"] == scheme
    assert table["labels"] == {"background": 0, "NCR": 1, "ED": 2, "ET": enhancing}
    assert table["producer"].startswith("segmamba-service ")
    assert sorted(np.unique(np.asarray(image.dataobj))) == [0, 1, 2, enhancing]
    np.testing.assert_array_equal(read_label_map(data, argument="mine")[0], LABELS)


def test_the_same_labels_give_the_same_bytes() -> None:
    like = read_nifti(nifti_bytes(random_image(SHAPE)), argument="t1")
    first = encode_label_map(LABELS, like=like, scheme="brats2021")
    assert encode_label_map(np.asfortranarray(LABELS), like=like, scheme="brats2021") == first


def test_nothing_else_of_the_source_is_handed_on() -> None:
    source = nifti_bytes(
        random_image(SHAPE), descrip=b"Jane Roe", db_name=b"Jane Roe", aux_file=b"Jane Roe"
    )
    like = read_nifti(source, argument="t1")
    assert b"Jane" not in gzip.decompress(encode_label_map(LABELS, like=like, scheme="brats2021"))


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_a_volume_made_in_code_is_written_in_both_forms(axcodes: str) -> None:
    like = Volume(LABELS, oblique_affine()).reoriented(axcodes)
    written = loaded(encode_label_map(like.array, like=like, scheme="brats2023"))
    np.testing.assert_allclose(written.header.get_sform(), like.affine, atol=1e-4)
    np.testing.assert_allclose(written.header.get_qform(), like.affine, atol=1e-4)
    assert written.header["sform_code"] == written.header["qform_code"] == 1


@pytest.mark.parametrize("codes", [(0, 0), (0, 2), (2, 0), (1, 1)])
def test_a_sheared_affine_is_told_by_the_sform_alone(codes: tuple[int, int]) -> None:
    frame = NiftiFrame(sform_code=codes[0], qform_code=codes[1])
    like = Volume(LABELS, SHEARED, frame)
    written = loaded(encode_label_map(LABELS, like=like, scheme="brats2023"))
    np.testing.assert_allclose(written.affine, SHEARED, atol=1e-5)
    assert written.header["qform_code"] == 0
    assert written.header["sform_code"] == (codes[0] or 1)


def test_a_turned_source_keeps_its_codes() -> None:
    source = nifti_bytes(random_image(SHAPE), oblique_affine(), sform_code=0, qform_code=3)
    like = read_nifti(source, argument="t1").reoriented("SPL")
    written = loaded(
        encode_label_map(np.zeros(like.shape, np.uint8), like=like, scheme="brats2023")
    )
    assert (written.header["sform_code"], written.header["qform_code"]) == (0, 3)
    np.testing.assert_allclose(written.affine, like.affine, atol=1e-3)


def test_a_header_that_belongs_to_another_grid_is_refused() -> None:
    frame = read_nifti(nifti_bytes(random_image(SHAPE)), argument="t1").header
    with pytest.raises(ImageError, match="does not survive writing"):
        encode_label_map(LABELS, like=Volume(LABELS, oblique_affine(), frame), scheme="brats2021")


def test_labels_of_another_shape_are_refused() -> None:
    with pytest.raises(ImageError, match="labels: expected the shape"):
        encode_label_map(LABELS[1:], like=Volume(LABELS, BRATS_AFFINE), scheme="brats2021")


def test_unknown_labels_and_schemes_are_refused() -> None:
    like = Volume(LABELS, BRATS_AFFINE)
    with pytest.raises(InputError):
        encode_label_map(LABELS + 4, like=like, scheme="brats2021")
    with pytest.raises(OptionError):
        encode_label_map(LABELS, like=like, scheme="brats1999")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
def test_images_come_back_as_they_were_written(tmp_path: Path, name: str, dtype: str) -> None:
    volume = Volume(random_image(SHAPE).astype(dtype), oblique_affine())
    write_nifti(tmp_path / name, volume)
    back = read_nifti(tmp_path / name, argument="t1")
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)
    assert nib.load(tmp_path / name).get_data_dtype() == dtype


@pytest.mark.parametrize(
    ("given", "stored"), [("?", "u1"), ("i8", "f4"), ("f8", "f4"), ("f2", "f4")]
)
def test_types_that_are_not_stored_are_converted(tmp_path: Path, given: str, stored: str) -> None:
    array = np.indices(SHAPE).sum(0).astype(given)
    write_nifti(tmp_path / "image.nii", Volume(array, np.eye(4)))
    image = nib.load(tmp_path / "image.nii")
    assert image.get_data_dtype() == stored
    np.testing.assert_array_equal(image.get_fdata(), array)


def test_a_label_map_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "seg.nii.gz"
    like = Volume(LABELS, BRATS_AFFINE)
    write_label_map(path, LABELS, like=like, scheme="brats2021")
    before = path.read_bytes()
    assert before == encode_label_map(LABELS, like=like, scheme="brats2021")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_label_map(path, LABELS * 0, like=like, scheme="brats2021")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_real_geometry_survives(real_cases: Path) -> None:
    for case in ("BraTS2021_00006", "BraTS2021_01476", "BraTS2021_01657"):
        like = read_nifti(real_cases / case / f"{case}_t1.nii.gz", argument="t1")
        truth, _ = read_label_map(real_cases / case / f"{case}_seg.nii.gz", argument="truth")
        written = loaded(encode_label_map(truth, like=like, scheme="brats2021"))
        source = nib.load(real_cases / case / f"{case}_t1.nii.gz")
        np.testing.assert_array_equal(written.affine, source.affine)
        for field in GEOMETRY_FIELDS:
            np.testing.assert_array_equal(written.header[field], source.header[field], field)
        np.testing.assert_array_equal(written.header["pixdim"][:4], source.header["pixdim"][:4])
