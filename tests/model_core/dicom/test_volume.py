"""Every voxel at its place with its value: against dcm2niix, highdicom and the arrays."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from model_core.dicom.limits import DicomLimits
from model_core.dicom.pixels import decoded_frames
from model_core.dicom.series import Series, list_series
from model_core.dicom.volume import read_series
from model_core.errors import ImageError
from model_core.imaging.volume import Volume
from tests.dicom_series import (
    GEOMETRIES,
    LPS_TO_RAS,
    PLAIN,
    SeriesRecipe,
    enhanced_of,
    geometry_affine,
    slices_of,
    write_enhanced,
    write_series,
)

SHAPE = (14, 12, 5)
SPACING = (0.9, 1.1, 3.3)
IMAGE = np.random.default_rng(0).permutation(np.prod(SHAPE)).reshape(SHAPE) % 4096
AFFINE = geometry_affine(shape=SHAPE, spacing=SPACING, oblique=True)
Write = Callable[[Path, NDArray[Any], NDArray[np.float64], SeriesRecipe], Any]


def read(*files: Path) -> Volume:
    (series,) = list_series(files)
    assert series.problems == ()
    return read_series(series)


def places(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """World place of every voxel, (X, Y, Z, 3)."""
    index = np.stack(np.indices(shape), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def assert_same_world(
    ours: Volume, values: NDArray[Any], affine: NDArray[np.float64], tolerance_mm: float = 1e-3
) -> None:
    """Each voxel of the one has a voxel of the other at its place, with its value."""
    inverse = np.linalg.inv(affine)
    index = places(inverse @ ours.affine, ours.shape)
    whole = np.rint(index).astype(int)
    off = (index - whole) @ affine[:3, :3].T
    assert np.linalg.norm(off, axis=-1).max() < tolerance_mm
    assert sorted(values.shape) == sorted(ours.shape)
    np.testing.assert_array_equal(ours.array, values[tuple(np.moveaxis(whole, -1, 0))])


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("enhanced", [False, True])
def test_a_series_comes_back_as_it_was_written(
    tmp_path: Path, enhanced: bool, geometry: str, oblique: bool
) -> None:
    affine = geometry_affine(geometry, shape=SHAPE, spacing=SPACING, oblique=oblique)
    if enhanced:
        volume = read(write_enhanced(tmp_path / "a", IMAGE, affine))
    else:
        volume = read(*write_series(tmp_path / "a", IMAGE, affine))
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, IMAGE)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-9)


def test_the_array_lies_in_memory_as_the_slices_do(tmp_path: Path) -> None:
    assert read(*write_series(tmp_path / "a", IMAGE, AFFINE)).array.T.flags.c_contiguous


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("enhanced", [False, True])
def test_highdicom_puts_every_voxel_at_the_same_place(
    tmp_path: Path, enhanced: bool, geometry: str, oblique: bool
) -> None:
    affine = geometry_affine(geometry, shape=SHAPE, spacing=SPACING, oblique=oblique)
    recipe = SeriesRecipe(scaling=(0.5, -100.0))
    files: tuple[Path, ...]
    if enhanced:
        files = (write_enhanced(tmp_path / "a", IMAGE - 100, affine, recipe),)
        theirs = hd.Image.from_dataset(dcmread(files[0])).get_volume()
    else:
        files = write_series(tmp_path / "a", IMAGE - 100, affine, recipe)
        theirs = hd.get_volume_from_series([dcmread(path) for path in files])
    their_affine = np.diag([-1, -1, 1, 1]) @ theirs.affine
    assert_same_world(read(*files), theirs.array, their_affine)


@pytest.mark.skipif(not shutil.which("dcm2niix"), reason="needs the Debian package dcm2niix")
@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("enhanced", [False, True])
def test_dcm2niix_puts_every_voxel_at_the_same_place(
    tmp_path: Path, enhanced: bool, geometry: str, oblique: bool
) -> None:
    affine = geometry_affine(geometry, shape=SHAPE, spacing=SPACING, oblique=oblique)
    folder = tmp_path / "a"
    folder.mkdir()
    files: tuple[Path, ...]
    if enhanced:
        files = (write_enhanced(folder / "all.dcm", IMAGE, affine),)
    else:
        files = write_series(folder, IMAGE, affine)
    theirs = dcm2niix(folder, tmp_path / "out")
    assert_same_world(read(*files), np.asanyarray(theirs.dataobj), theirs.affine)


def dcm2niix(folder: Path, out: Path) -> nib.Nifti1Image:
    out.mkdir()
    subprocess.run(
        ["dcm2niix", "-z", "n", "-f", "image", "-o", str(out), str(folder)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    (path,) = out.glob("*.nii")
    json.loads(path.with_suffix(".json").read_text())
    return nib.load(path)


@pytest.mark.parametrize("scaling", [(0.25, 0.0), (2.0, -1000.0), (-1.0, 4095.0)])
@pytest.mark.parametrize("write", [write_series, write_enhanced])
def test_rescale_slope_and_intercept_are_applied(
    tmp_path: Path, scaling: tuple[float, float], write: Write
) -> None:
    slope, intercept = scaling
    image = IMAGE * slope + intercept
    made = write(tmp_path / "a", image, AFFINE, SeriesRecipe(scaling=scaling))
    volume = read(*([made] if isinstance(made, Path) else made))
    np.testing.assert_array_equal(volume.array, image.astype(np.float32))


def test_every_slice_has_its_own_scale(tmp_path: Path) -> None:
    files = write_series(tmp_path / "a", IMAGE, AFFINE)
    for index, path in enumerate(files):
        dataset = dcmread(path)
        dataset.RescaleSlope, dataset.RescaleIntercept = index + 1, 10 * index
        dataset.save_as(path)
    steps = np.arange(SHAPE[2])
    np.testing.assert_array_equal(read(*files).array, IMAGE * (steps + 1) + 10 * steps)


def test_numbers_below_zero_stay_so(tmp_path: Path) -> None:
    image = IMAGE - 2000
    np.testing.assert_array_equal(read(*write_series(tmp_path, image, AFFINE)).array, image)


def test_bits_above_those_stored_are_not_part_of_the_image(tmp_path: Path) -> None:
    files = write_series(tmp_path, IMAGE, AFFINE)
    for path in files:
        dataset = dcmread(path)
        dataset.BitsStored, dataset.HighBit = 12, 11
        rubbish = np.frombuffer(dataset.PixelData, "<u2") | 0xA000
        dataset.PixelData = rubbish.tobytes()
        dataset.save_as(path)
    np.testing.assert_array_equal(read(*files).array, IMAGE)


def test_eight_bits_are_read(tmp_path: Path) -> None:
    image = IMAGE % 256
    files = write_series(tmp_path, image, AFFINE)
    for path in files:
        dataset = dcmread(path)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(np.uint8).tobytes()
        dataset["PixelData"].VR = "OB"
        dataset.save_as(path)
    np.testing.assert_array_equal(read(*files).array, image)


def gdcm_encoded(path: Path, syntax: str) -> None:
    """Encode a file again with GDCM."""
    import gdcm

    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()


def pydicom_encoded(path: Path, syntax: str) -> None:
    dataset = dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path)


def encoded_enhanced(path: Path, encode: Callable[[Path, str], None], syntax: str) -> None:
    """Encode an enhanced file frame by frame (GDCM alone would change its functional groups)."""
    whole, single = dcmread(path), path.with_suffix(".frame")
    frames = []
    for pixels in whole.pixel_array:
        one = dcmread(path)
        del one.NumberOfFrames, one.PerFrameFunctionalGroupsSequence
        one.PixelData = pixels.tobytes()
        one.save_as(single)
        encode(single, syntax)
        frames.append(next(generate_frames(dcmread(single).PixelData, number_of_frames=1)))
    whole.PixelData = encapsulate(frames)
    whole["PixelData"].VR = "OB"
    whole.file_meta.TransferSyntaxUID = syntax
    whole.save_as(path)


ENCODERS = [
    pytest.param(pydicom_encoded, RLELossless, id="RLE by pydicom"),
    pytest.param(pydicom_encoded, JPEGLSLossless, id="JPEG-LS by CharLS"),
    pytest.param(gdcm_encoded, JPEGLSLossless, id="JPEG-LS by GDCM"),
    pytest.param(gdcm_encoded, JPEGLosslessSV1, id="JPEG lossless by GDCM"),
    pytest.param(gdcm_encoded, JPEG2000Lossless, id="JPEG 2000 by GDCM"),
]


@pytest.mark.parametrize(("encode", "syntax"), ENCODERS)
@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("low", [0, -2000])
def test_compressed_pixels_are_the_same_numbers(
    tmp_path: Path, encode: Callable[[Path, str], None], syntax: str, enhanced: bool, low: int
) -> None:
    if enhanced:
        files: tuple[Path, ...] = (write_enhanced(tmp_path / "a", IMAGE + low, AFFINE),)
        encoded_enhanced(files[0], encode, syntax)
    else:
        files = write_series(tmp_path / "a", IMAGE + low, AFFINE)
        for path in files:
            encode(path, syntax)
    for path in files:
        assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read(*files).array, IMAGE + low)


REAL = Path(pydicom.__file__).parent / "data" / "test_files"
"""A slice of a real scanner, in every encoding, as pydicom carries it for its own tests."""


@pytest.mark.skipif(not (REAL / "MR_small.dcm").is_file(), reason="pydicom came without its files")
@pytest.mark.parametrize(
    "encoding",
    ["bigendian", "expb", "implicit", "padded", "RLE", "jp2klossless", "jpeg_ls_lossless"],
)
def test_a_real_slice_is_the_same_in_every_encoding(encoding: str) -> None:
    plain, other = REAL / "MR_small.dcm", REAL / f"MR_small_{encoding}.dcm"
    ((_, values),) = decoded_frames(plain, {0}, (64, 64), DicomLimits())
    ((_, same),) = decoded_frames(other, {0}, (64, 64), DicomLimits())
    np.testing.assert_array_equal(same, values)
    assert values.std() > 100
    (series,), (again,) = list_series([plain]), list_series([other])
    assert series.problems == again.problems == ("one slice only",)
    assert again.facts == series.facts
    assert series.facts.repetition_time_ms == 4000.0


def test_the_parts_of_a_series_read_their_own_frames_only(tmp_path: Path) -> None:
    """One enhanced file with two stacks of different orientation."""
    first = enhanced_of(IMAGE, AFFINE)
    coronal = geometry_affine("coronal", shape=SHAPE, spacing=SPACING)
    second = enhanced_of(IMAGE[::-1], coronal)
    for dataset in (first, second):
        plane = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
        del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
        for group in dataset.PerFrameFunctionalGroupsSequence:
            group.PlaneOrientationSequence = plane
    first.PerFrameFunctionalGroupsSequence += list(second.PerFrameFunctionalGroupsSequence)
    first.PixelData += second.PixelData
    first.NumberOfFrames = 2 * SHAPE[2]
    first.save_as(tmp_path / "both", enforce_file_format=True)
    volumes = {
        volume.axcodes: volume for volume in map(read_series, list_series([tmp_path / "both"]))
    }
    np.testing.assert_array_equal(volumes["LPS"].array, IMAGE)
    np.testing.assert_array_equal(volumes["LIP"].array, IMAGE[::-1])
    np.testing.assert_allclose(volumes["LIP"].affine, coronal, atol=1e-9)


def test_the_warnings_of_a_series_are_those_of_its_volume(tmp_path: Path) -> None:
    lossy = SeriesRecipe(extra={"LossyImageCompression": "01"})
    volume = read(*write_series(tmp_path, IMAGE, AFFINE, lossy))
    assert volume.warnings == ("the images were compressed with loss at some time",)


def refused(series: Series) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_series(series, argument="t1ce")
    assert caught.value.argument == "t1ce"
    return caught.value


def test_a_series_with_problems_is_refused_with_all_of_them(tmp_path: Path) -> None:
    extra = {"ImageType": ["A", "B", "MOSAIC"], "SamplesPerPixel": 3}
    (series,) = list_series(write_series(tmp_path, IMAGE, AFFINE, SeriesRecipe(extra=extra)))
    assert len(series.problems) == 2
    assert all(problem in refused(series).got for problem in series.problems)


@pytest.mark.parametrize("cut", [1, 100, 336, 348])
def test_pixels_cut_off_are_seen_before_any_is_read(tmp_path: Path, cut: int) -> None:
    files = write_series(tmp_path, IMAGE, AFFINE)
    files[4].write_bytes(files[4].read_bytes()[:-cut])
    (series,) = list_series(files)
    assert series.problems == ("a file that was cut off, or holds no pixels",)
    assert "cut off" in refused(series).got


def test_compressed_pixels_cut_off_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path, IMAGE, AFFINE)
    for path in files:
        pydicom_encoded(path, RLELossless)
    files[4].write_bytes(files[4].read_bytes()[:-100])
    (series,) = list_series(files)
    assert "damaged or missing" in refused(series).got


def test_a_scale_beyond_float32_is_refused(tmp_path: Path) -> None:
    huge = SeriesRecipe(extra={"RescaleSlope": "1e39"})
    (series,) = list_series(write_series(tmp_path, IMAGE, AFFINE, huge))
    assert "infinite" in refused(series).got


def test_jpeg_of_twelve_bits_is_refused_in_words(tmp_path: Path) -> None:
    files = write_series(tmp_path, IMAGE, AFFINE)
    for path in files:
        gdcm_encoded(path, JPEGLosslessSV1)
        old = JPEGLosslessSV1.encode()
        new = JPEGExtended12Bit.encode()
        path.write_bytes(path.read_bytes().replace(old, new.ljust(len(old), b"\0")))
    (series,) = list_series(files)
    assert "damaged or missing" in refused(series).got


def test_a_volume_of_one_scanner_frame_keeps_its_world(tmp_path: Path) -> None:
    """A landmark, by hand: the voxel (row 3, column 5, slice 2) of an axial series."""
    affine = geometry_affine(shape=SHAPE, spacing=SPACING)
    slices = slices_of(IMAGE, affine, replace(PLAIN, shuffled=False))
    place = [float(mm) for mm in slices[2].ImagePositionPatient]
    lps = np.array(place) + np.array([5 * SPACING[0], 3 * SPACING[1], 0])
    volume = read(*write_series(tmp_path, IMAGE, affine))
    world = (volume.affine @ [5, 3, 2, 1])[:3]
    np.testing.assert_allclose(world, LPS_TO_RAS @ lps, atol=1e-9)
    assert volume.array[5, 3, 2] == slices[2].pixel_array[3, 5]
