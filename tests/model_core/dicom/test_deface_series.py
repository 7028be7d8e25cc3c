"""What is taken out of the pixels: the right points, nothing else, on whatever grid they lie."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from model_core.dicom.deface_series import Face, Place, places_of, take_face_out
from model_core.dicom.deidentify import Deidentifier
from model_core.dicom.series import list_series
from model_core.dicom.volume import read_series
from model_core.errors import ImageError
from model_core.imaging.grid import Grid
from model_core.imaging.volume import Volume
from tests.dicom_series import (
    GEOMETRIES,
    PLAIN,
    PLANTED,
    SeriesRecipe,
    geometry_affine,
    write_enhanced,
    write_series,
)
from tests.face_heads import LEFT_OF_NOSE_MM, points_of

SHAPE = (24, 22, 20)
SPACING = (5.0, 6.0, 7.0)
CENTRE = (-5.0, 40.0, -20.0)
KEY = b"sixteen bytes or more"


def ball(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A face that is a ball left of the nose: no turn or mirror of a grid leaves it there."""
    near: NDArray[np.bool_] = np.linalg.norm(points - LEFT_OF_NOSE_MM, axis=-1) < 25
    return near


def everything(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.ones(points.shape[:-1], np.bool_)


def affine_of(name: str = "axial", *, oblique: bool = False) -> NDArray[np.float64]:
    return geometry_affine(name, shape=SHAPE, spacing=SPACING, oblique=oblique, centre=CENTRE)


def values() -> NDArray[Any]:
    return np.random.default_rng(5).integers(1, 4000, SHAPE)


def cleaned(files: tuple[Path, ...], folder: Path, face: Face = ball) -> tuple[Path, ...]:
    """The files through the whole of de-identification."""
    places = places_of((series, face) for series in list_series(files))
    folder.mkdir()
    written = []
    for number, path in enumerate(files):
        clean = Deidentifier(KEY).clean(path, deface=partial(take_face_out, places=places[path]))
        written.append(folder / f"{number}.dcm")
        written[-1].write_bytes(clean.data)
    return tuple(written)


def volume_of(files: tuple[Path, ...]) -> Volume:
    (series,) = list_series(files)
    return read_series(series)


def assert_only_the_ball_is_gone(before: Volume, after: Volume) -> None:
    inside = ball(points_of(before.grid))
    assert 40 < inside.sum() < before.array.size / 10
    assert not after.array[inside].any()
    np.testing.assert_array_equal(after.array[~inside], before.array[~inside])
    assert before.array[~inside].all()
    np.testing.assert_array_equal(after.affine, before.affine)


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_left_stays_left_and_front_stays_front(name: str, oblique: bool, tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", values(), affine_of(name, oblique=oblique))
    after = volume_of(cleaned(files, tmp_path / "out"))
    assert_only_the_ball_is_gone(volume_of(files), after)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_frames_of_an_enhanced_image_are_found_by_their_place(
    name: str, tmp_path: Path
) -> None:
    path = write_enhanced(tmp_path / "in.dcm", values(), affine_of(name, oblique=True))
    after = volume_of(cleaned((path,), tmp_path / "out"))
    assert_only_the_ball_is_gone(volume_of((path,)), after)


@pytest.mark.parametrize("scaling", [(1.0, -1000.0), (0.5, -20.0), (2.0, 0.0), (1.0, 50.0)])
def test_what_is_gone_is_zero_once_it_is_scaled(
    scaling: tuple[float, float], tmp_path: Path
) -> None:
    """Or the nearest number that can be stored: with an intercept of 50 that is 50."""
    array = values().astype(float) * 4 + 100
    files = write_series(tmp_path / "in", array, affine_of(), replace(PLAIN, scaling=scaling))
    before, after = volume_of(files), volume_of(cleaned(files, tmp_path / "out"))
    inside = ball(points_of(before.grid))
    assert np.unique(after.array[inside]).tolist() == [max(scaling[1], 0.0)]
    np.testing.assert_array_equal(after.array[~inside], before.array[~inside])


def test_only_pixels_and_what_says_so_differ_from_an_image_that_keeps_its_face(
    tmp_path: Path,
) -> None:
    recipe = SeriesRecipe(patient=PLANTED, extra={"LargestImagePixelValue": 4000})
    files = write_series(tmp_path / "in", values(), affine_of(), recipe)
    path, places = files[12], places_of([(list_series(files)[0], everything)])
    change = partial(take_face_out, places=places[path])
    plain, clean = (
        dcmread(BytesIO(Deidentifier(KEY).clean(path, deface=one).data)) for one in (None, change)
    )
    differing = {e.keyword for e in (*plain, *clean) if plain.get(e.tag) != clean.get(e.tag)}
    assert differing == {
        "PixelData", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
        "RecognizableVisualFeatures", "LargestImagePixelValue",
    }  # fmt: skip
    assert clean.RecognizableVisualFeatures == "NO"
    codes = [
        (c.CodeValue, c.CodingSchemeDesignator, c.CodeMeaning)
        for c in clean.DeidentificationMethodCodeSequence
    ]
    assert codes == [
        ("113100", "DCM", "Basic Application Confidentiality Profile"),
        ("113102", "DCM", "Clean Recognizable Visual Features Option"),
    ]
    assert all(len(words) <= 64 for words in clean.DeidentificationMethod)
    assert "RecognizableVisualFeatures" not in plain
    assert "LargestImagePixelValue" not in clean


def test_a_compressed_image_loses_its_face_too(tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", values(), affine_of())
    expected = volume_of(files)
    for path in files:
        dataset = dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    assert_only_the_ball_is_gone(expected, volume_of(cleaned(files, tmp_path / "out")))


def image(stored: NDArray[Any], **tags: Any) -> Dataset:
    dataset = Dataset()
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = dataset.BitsStored = stored.itemsize * 8
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes() + bytes(stored.nbytes % 2)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def slice_of(face: Face, scaling: tuple[float, float] = (1.0, 0.0)) -> Place:
    return Place(grid=Grid((5, 3, 2), np.eye(4)), number=0, scaling=scaling, face=face)


@pytest.mark.parametrize(
    ("kind", "bits", "scaling", "expected"),
    [
        ("u1", 8, (1.0, 0.0), 0),
        ("i1", 8, (1.0, 100.0), -100),
        ("i1", 8, (1.0, 500.0), -128),
        ("<u2", 12, (1.0, -9000.0), 4095),
        ("<i2", 12, (0.01, 900.0), -2048),
        ("<i2", 16, (4.0, -4096.0), 1024),
    ],
)
def test_the_number_that_is_put_there_fits_the_bits(
    kind: str, bits: int, scaling: tuple[float, float], expected: int
) -> None:
    stored = np.arange(15).reshape(3, 5).astype(kind)
    dataset = image(stored, BitsStored=bits)
    size = len(dataset.PixelData)
    place = slice_of(everything, scaling)
    take_face_out(dataset, {0: place})
    assert np.unique(np.frombuffer(dataset.PixelData, kind, 15)).tolist() == [expected]
    assert len(dataset.PixelData) == size


def test_a_frame_without_a_place_is_refused_and_nothing_is_changed() -> None:
    dataset = image(np.ones((3, 5), "<u2"))
    place = slice_of(everything)
    for places in ({}, {1: place}, {0: place, 1: place}):
        with pytest.raises(ImageError, match="its face would stay"):
            take_face_out(dataset, places)
    assert dataset.PixelData == np.ones((3, 5), "<u2").tobytes()
