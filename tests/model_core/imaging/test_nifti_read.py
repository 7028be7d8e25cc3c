from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_core.errors import ImageError
from model_core.imaging import nifti
from model_core.imaging.grid import Grid
from model_core.imaging.nifti import ReadLimits, read_label_map, read_nifti, write_nifti
from model_core.imaging.volume import Volume
from model_core.types import LabelScheme
from tests.model_core.imaging.builders import (
    BRATS_AFFINE,
    nifti_bytes,
    oblique_affine,
    random_image,
    rotation,
)

SHAPE = (8, 9, 10)
DTYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")


def counting(dtype: str = "i2") -> np.ndarray:
    return (np.arange(720).reshape(SHAPE) % 120).astype(dtype)


def read(data: bytes, **limits: Any) -> Any:
    return read_nifti(data, argument="t1ce", limits=ReadLimits(**limits))


def volume_or_error(data: bytes) -> Volume | ImageError:
    try:
        return read_nifti(data, argument="t1ce")
    except ImageError as error:
        return error


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_order_and_version_gives_the_same_values(
    dtype: str, endianness: str, version: int, compress: bool
) -> None:
    data = nifti_bytes(
        counting(dtype), oblique_affine(), version=version, endianness=endianness, compress=compress
    )
    volume = read(data)
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, counting("f4"))
    np.testing.assert_allclose(volume.affine, oblique_affine(), atol=1e-5)
    assert volume.header is not None
    assert volume.header.version == version
    assert volume.warnings == ()


def test_a_file_written_by_nibabel_reads_as_nibabel_reads_it(tmp_path: Path) -> None:
    image = nib.Nifti1Image(random_image(SHAPE) - 30, oblique_affine())
    image.header.set_data_dtype(np.int16)  # nibabel then chooses a scale and an intercept
    nib.save(image, tmp_path / "image.nii.gz")
    theirs = nib.load(tmp_path / "image.nii.gz")
    ours = read_nifti(tmp_path / "image.nii.gz", argument="t1")
    assert theirs.dataobj.slope not in (0, 1)
    np.testing.assert_allclose(ours.array, theirs.get_fdata(), rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(ours.affine, theirs.affine)


def test_a_scale_is_applied_and_a_slope_of_zero_means_none() -> None:
    scaled = read(nifti_bytes(counting(), scl_slope=0.5, scl_inter=-3))
    np.testing.assert_array_equal(scaled.array, counting("f4") * 0.5 - 3)
    unscaled = read(nifti_bytes(counting(), scl_slope=0, scl_inter=np.nan))
    np.testing.assert_array_equal(unscaled.array, counting("f4"))


@pytest.mark.parametrize("trailing", [(1,), (1, 1), (1, 1, 1, 1)])
def test_trailing_axes_of_length_one_are_dropped(trailing: tuple[int, ...]) -> None:
    volume = read(nifti_bytes(counting().reshape(SHAPE + trailing)))
    np.testing.assert_array_equal(volume.array, counting("f4"))


def test_extensions_before_the_voxels_are_skipped() -> None:
    raw = bytearray(nifti_bytes(counting(), compress=False))
    extension = struct.pack("<ii", 32, 6) + b"a comment".ljust(24, b"\0")
    raw[108:112] = struct.pack("<f", 352 + 32)
    data = bytes(raw[:348]) + b"\1\0\0\0" + extension + bytes(raw[352:])
    np.testing.assert_array_equal(read(gzip.compress(data)).array, counting("f4"))


@pytest.mark.parametrize("claimed", [0, -16, 7, 2**31 - 1])
@pytest.mark.parametrize("version", [1, 2])
def test_sizes_inside_extensions_are_nobodys_business(claimed: int, version: int) -> None:
    raw = nifti_bytes(counting(), version=version, compress=False)
    at = 348 if version == 1 else 540
    field = {1: (108, struct.pack("<f", at + 4 + 32)), 2: (168, struct.pack("<q", at + 4 + 32))}
    place, offset = field[version]
    header = bytearray(raw[:at])
    header[place : place + len(offset)] = offset
    extension = struct.pack("<ii", claimed, 6) + bytes(24)
    data = bytes(header) + b"\1\0\0\0" + extension + raw[at + 4 :]
    np.testing.assert_array_equal(read(gzip.compress(data)).array, counting("f4"))


@pytest.mark.parametrize("dtype", ["i4", "u4", "i8", "u8"])
def test_whole_numbers_that_float32_cannot_hold_are_rounded_with_a_warning(dtype: str) -> None:
    array = counting(dtype)
    array[0, 0, 0] = 2**24
    assert read(nifti_bytes(array)).warnings == ()
    array[0, 0, 0] = np.iinfo(dtype).max
    array[0, 0, 1] = np.iinfo(dtype).min
    volume = read(nifti_bytes(array))
    assert volume.warnings == ("whole numbers beyond 16777216 were rounded to 24 bits",)
    np.testing.assert_array_equal(volume.array, array.astype("f4"))


def test_an_unset_offset_means_the_usual_one() -> None:
    np.testing.assert_array_equal(read(nifti_bytes(counting(), vox_offset=0)).array, counting("f4"))


def test_concatenated_gzip_members_are_one_file() -> None:
    raw = nifti_bytes(counting(), compress=False)
    data = gzip.compress(raw[:200]) + gzip.compress(raw[200:1000]) + gzip.compress(raw[1000:])
    np.testing.assert_array_equal(read(data).array, counting("f4"))


# Geometry


def test_the_sform_is_believed_if_it_is_coded() -> None:
    volume = read(nifti_bytes(counting(), oblique_affine(), qform_code=0, qoffset_x=999))
    np.testing.assert_allclose(volume.affine, oblique_affine(), atol=1e-5)


@pytest.mark.parametrize("qfac", [1, -1])
def test_else_the_qform_by_nibabels_reading(qfac: int) -> None:
    affine = oblique_affine() @ np.diag((1, 1, qfac, 1))
    data = nifti_bytes(counting(), affine, sform_code=0, srow_x=(0, 0, 0, 0))
    theirs = nib.Nifti1Image.from_bytes(gzip.decompress(data)).affine
    np.testing.assert_allclose(read(data).affine, theirs, atol=1e-5)
    np.testing.assert_allclose(read(data).affine, affine, atol=1e-4)


def test_a_qfac_of_zero_means_one() -> None:
    data = nifti_bytes(counting(), np.eye(4), sform_code=0, pixdim=(0, 1, 1, 1, 0, 0, 0, 0))
    np.testing.assert_array_equal(read(data).affine, np.eye(4))


@pytest.mark.parametrize("degrees", [0, 90, 179.99, 180, 270])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_qform_holds_for_every_turn(degrees: float, axis: int) -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees, axis) * (1, 2, 3)
    data = nifti_bytes(counting(), affine, sform_code=0)
    np.testing.assert_allclose(read(data).affine, affine, atol=2e-3)


def test_without_a_code_the_image_is_refused_with_the_way_out() -> None:
    with pytest.raises(ImageError, match="dcm2niix") as caught:
        read(nifti_bytes(counting(), sform_code=0, qform_code=0))
    assert caught.value.argument == "t1ce"


@pytest.mark.parametrize(("shift", "warned"), [(0.0, False), (0.005, False), (0.5, True)])
def test_a_small_disagreement_of_the_two_forms_is_said(shift: float, warned: bool) -> None:
    volume = read(nifti_bytes(counting(), qoffset_x=shift))
    assert bool(volume.warnings) is warned
    np.testing.assert_allclose(volume.affine, BRATS_AFFINE)


def test_a_large_disagreement_is_refused() -> None:
    with pytest.raises(ImageError, match=r"within 1 mm of each other, got 1\.5 mm"):
        read(nifti_bytes(counting(), qoffset_x=1.5))


# Refusals


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"datatype": 32, "bitpix": 64}, "datatype 32"),  # complex
        ({"datatype": 128, "bitpix": 24}, "datatype 128"),  # RGB
        ({"datatype": 1536, "bitpix": 128}, "datatype 1536"),  # float128
        ({"bitpix": 8}, "16 bits per voxel"),
        ({"dim": (2, 8, 9, 1, 1, 1, 1, 1)}, "2 dimensions"),
        ({"dim": (0, 8, 9, 10, 1, 1, 1, 1)}, "0 dimensions"),
        ({"dim": (-3, 8, 9, 10, 1, 1, 1, 1)}, "-3 dimensions"),
        ({"dim": (4, 8, 9, 10, 2, 1, 1, 1)}, "8×9×10×2"),
        ({"dim": (3, 7, 9, 10, 1, 1, 1, 1)}, "8 to 1024"),
        ({"dim": (3, -8, 9, 10, 1, 1, 1, 1)}, "8 to 1024"),
        ({"dim": (3, 8, 9, 1025, 1, 1, 1, 1)}, "8 to 1024"),
        ({"dim": (3, 1024, 1024, 1024, 1, 1, 1, 1)}, "in all at most"),
        ({"vox_offset": 351}, "begin 352 bytes"),
        ({"vox_offset": 352.5}, "begin 352 bytes"),
        ({"vox_offset": np.nan}, "begin 352 bytes"),
        ({"vox_offset": 1e30}, "begin 352 bytes"),
        ({"scl_slope": np.nan}, "finite intensity scale"),
        ({"scl_slope": np.inf}, "finite intensity scale"),
        ({"scl_slope": 2, "scl_inter": np.nan}, "finite intensity scale"),
        ({"scl_slope": 3e38}, "NaN or infinite"),
        ({"srow_x": (np.nan, 0, 0, 0)}, "a sform with"),
        ({"srow_x": (0, 0, 0, 0)}, "singular"),
        ({"quatern_b": 2}, "a qform with"),
        ({"quatern_b": np.nan}, "a qform with"),
        ({"sform_code": 0, "pixdim": (1, 1, 0, 1, 0, 0, 0, 0)}, "singular"),
        ({"xyzt_units": 1}, "millimetres"),
        ({"magic": b"ni1"}, "half of a"),
        ({"magic": b""}, "Analyze"),
        ({"sizeof_hdr": 300}, "something else"),
    ],
)
def test_a_header_that_breaks_a_rule_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError, match=r"^t1ce: expected ") as caught:
        read(nifti_bytes(counting(), **fields))
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_refused(value: float) -> None:
    array = counting("f4")
    array[3, 3, 3] = value
    with pytest.raises(ImageError, match="NaN or infinite"):
        read(nifti_bytes(array))


def test_float64_beyond_float32_is_refused() -> None:
    array = counting("f8")
    array[3, 3, 3] = 1e300
    with pytest.raises(ImageError, match="NaN or infinite"):
        read(nifti_bytes(array))


@pytest.mark.parametrize("compress", [True, False])
def test_missing_and_surplus_bytes_are_refused(compress: bool) -> None:
    raw = nifti_bytes(counting(), compress=False)
    pack = gzip.compress if compress else bytes
    for length in (0, 3, 347, 348, 351, 352, len(raw) - 1):
        with pytest.raises(ImageError):
            read(pack(raw[:length]))
    with pytest.raises(ImageError, match="bytes, as its header says, got more"):
        read(pack(raw + b"\0"))


def test_a_bomb_behind_a_small_image_is_refused() -> None:
    raw = nifti_bytes(counting(), compress=False)
    with pytest.raises(ImageError, match="got more"):
        read(gzip.compress(raw + bytes(50_000_000), 1))


def test_a_huge_claim_over_a_small_file_is_refused_before_it_costs_memory() -> None:
    data = nifti_bytes(counting(), dim=(3, 512, 512, 512, 1, 1, 1, 1))
    with pytest.raises(ImageError, match="fewer"):
        read(data)


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"MZ\x90\0".ljust(128, b"\0") + b"DICM", "a program"),  # both at once
        (bytes(128) + b"DICM", "a DICOM file. Convert the series with dcm2niix."),
        (b"PK\x03\x04", "a zip archive. Unpack it"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture. Hand over the volume"),
        (b"\x80\x04\x95", "pickles are never opened"),
        (b"no idea", "something else. Convert it with dcm2niix if it is DICOM."),
    ],
)
def test_what_was_sent_instead_is_called_by_its_name(
    start: bytes, message: str, compress: bool
) -> None:
    for data in (start, start.ljust(5000, b"\0")):
        with pytest.raises(ImageError) as caught:
            read(gzip.compress(data) if compress else data)
        assert message in str(caught.value)


def test_half_a_header_is_called_cut_off() -> None:
    for length in (4, 100, 347):
        with pytest.raises(ImageError, match="The file was cut off"):
            read(VALID_RAW[:length])


def test_a_file_that_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image.nii"
    path.write_bytes(VALID_RAW)
    monkeypatch.setattr(nifti, "_file_size", lambda path: len(VALID_RAW) - 1)
    with pytest.raises(ImageError, match="one that cannot be read"):
        read_nifti(path, argument="t1ce")


def test_limits_are_the_callers() -> None:
    data = nifti_bytes(counting())
    with pytest.raises(ImageError, match="at most 100"):
        read(data, file_bytes=100)
    with pytest.raises(ImageError, match="719 in all"):
        read(data, voxels=719)
    with pytest.raises(ImageError, match="8 to 9 voxels"):
        read(data, longest_axis=9)


@pytest.mark.parametrize("name", ["missing.nii.gz", ".", "with\0null"])
def test_a_file_that_cannot_be_read_is_refused_without_its_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="t1ce: expected a readable file") as caught:
        read_nifti(tmp_path / name, argument="t1ce")
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_no_header_text_reaches_an_error() -> None:
    secret = nifti_bytes(counting(), descrip=b"Jane Roe", db_name=b"Jane Roe", sform_code=0)
    for data in (secret, nifti_bytes(counting(), datatype=32, descrip=b"Jane Roe")):
        told = repr(volume_or_error(data))
        assert "Jane" not in told
        assert "Roe" not in told


# Hostile files: whatever the bytes, an `ImageError` or a valid volume, and nothing else.

HOSTILE = settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
VALID_RAW = nifti_bytes(counting(), oblique_affine(), compress=False)
VALID_SECOND = {
    order: nifti_bytes(counting(), oblique_affine(), version=2, endianness=order, compress=False)
    for order in "<>"
}
VALID_GZIP = nifti_bytes(counting("f4"), oblique_affine())


def only_image_errors(data: bytes) -> None:
    outcome = volume_or_error(data)
    if isinstance(outcome, ImageError):
        assert outcome.argument == "t1ce"
    else:
        assert np.isfinite(outcome.array).all()


@HOSTILE
@given(st.binary(max_size=1000))
def test_garbage(data: bytes) -> None:
    only_image_errors(data)
    only_image_errors(b"\x1f\x8b\x08" + data)
    only_image_errors(gzip.compress(data))


@HOSTILE
@given(st.binary(min_size=344, max_size=344))
def test_a_random_header_of_the_right_length(rest: bytes) -> None:
    for order in "<>":
        only_image_errors(struct.pack(f"{order}i", 348) + rest[:-4] + b"n+1\0" + bytes(4096))


@HOSTILE
@given(
    st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=8),
    st.booleans(),
)
def test_a_valid_header_with_changed_bytes(changes: list[tuple[int, int]], compress: bool) -> None:
    data = bytearray(VALID_RAW)
    for position, value in changes:
        data[position] = value
    only_image_errors(gzip.compress(bytes(data), 1) if compress else bytes(data))


@HOSTILE
@given(
    st.lists(st.tuples(st.integers(0, 67), st.binary(min_size=8, max_size=8)), min_size=1),
    st.sampled_from("<>"),
)
def test_a_second_version_header_with_changed_fields(
    changes: list[tuple[int, bytes]], endianness: str
) -> None:
    data = bytearray(VALID_SECOND[endianness])
    for field, value in changes:
        data[8 * field : 8 * field + 8] = value
    only_image_errors(bytes(data))


@pytest.mark.parametrize("huge", [1e38, 1e160, 1e300])
def test_absurd_geometry_is_refused_or_survives(huge: float) -> None:
    for fields in ({"srow_x": (huge, 0, 0, huge)}, {"qoffset_x": huge}, {"scl_slope": huge}):
        only_image_errors(nifti_bytes(counting(), version=2, **fields))


@HOSTILE
@given(st.data())
def test_a_valid_gzip_file_with_changed_bytes_or_a_cut(data: st.DataObject) -> None:
    changed = bytearray(VALID_GZIP)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    only_image_errors(bytes(changed))
    only_image_errors(VALID_GZIP[: data.draw(st.integers(0, len(VALID_GZIP)))])


# Label maps


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4", "f8"])
@pytest.mark.parametrize(("enhancing", "scheme"), [(3, "brats2023"), (4, "brats2021")])
def test_label_maps_of_any_type_and_numbering_give_internal_labels(
    dtype: str, enhancing: int, scheme: LabelScheme
) -> None:
    expected = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    stored = np.where(expected == 3, enhancing, expected).astype(dtype)
    labels, volume = read_label_map(nifti_bytes(stored), argument="truth", scheme=scheme)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(volume.affine, BRATS_AFFINE)


def test_values_that_are_no_labels_are_refused_by_name() -> None:
    with pytest.raises(ImageError, match=r"^truth: "):
        read_label_map(nifti_bytes(counting("f4") + 0.5), argument="truth")


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "SPL", "IAR"])
def test_a_label_map_in_another_axis_order_is_turned_to_its_images(
    tmp_path: Path, axcodes: str
) -> None:
    labels = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    images = Volume(counting("f4"), oblique_affine((1, 1, 1)))
    path = tmp_path / "CASE-seg.nii"
    write_nifti(path, Volume(labels, images.affine).reoriented(axcodes))
    found, volume = read_label_map(path, argument="truth", on=images.grid)
    np.testing.assert_array_equal(found, labels)
    assert volume.grid.matches(images.grid)


def test_a_label_map_on_another_grid_than_its_images_is_refused() -> None:
    data = nifti_bytes(np.zeros(SHAPE, np.uint8))
    with pytest.raises(ImageError, match="truth: expected a label map on the grid of its images"):
        read_label_map(data, argument="truth", on=Grid(SHAPE, np.eye(4)))


def test_a_real_study_reads_as_nibabel_reads_it(real_cases: Path) -> None:
    for case in ("BraTS2021_00006", "BraTS2021_01657"):  # the second has no sform
        path = real_cases / case / f"{case}_t1ce.nii.gz"
        theirs, ours = nib.load(path), read_nifti(path, argument="t1ce")
        np.testing.assert_array_equal(ours.array, theirs.get_fdata(dtype=np.float32))
        np.testing.assert_array_equal(ours.affine, theirs.affine)
