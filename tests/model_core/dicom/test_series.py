"""Files sorted into series: what belongs together, lies where, and why something is no volume."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.sequence import Sequence
from pydicom.uid import BasicTextSRStorage

from model_core.dicom.limits import DicomLimits
from model_core.dicom.series import Series, list_series
from model_core.errors import ImageError
from tests.dicom_series import (
    GEOMETRIES,
    PLAIN,
    T1_FACTS,
    SeriesRecipe,
    geometry_affine,
    series_uid,
    study_uid,
    uid_of,
    with_facts,
    write_enhanced,
    write_series,
)

SHAPE = (8, 9, 6)
SPACING = (0.5, 0.75, 2.5)
IMAGE = np.random.default_rng(0).integers(0, 2000, SHAPE)
OTHER = np.random.default_rng(1).integers(0, 2000, SHAPE)
AFFINE = geometry_affine(shape=SHAPE, spacing=SPACING, oblique=True)


def only(files: Any) -> Series:
    (series,) = list_series(files)
    return series


def problem(files: Any) -> str:
    series = only(files)
    assert series.grid is None
    assert series.shape is series.spacing_mm is series.axcodes is None
    (words,) = series.problems
    return words


def test_a_series_knows_its_grid_its_facts_and_its_references(tmp_path: Path) -> None:
    paths = write_series(tmp_path, IMAGE, AFFINE)
    series = only(paths)
    assert series.uid == series.series_uid == series_uid()
    assert series.study_uid == study_uid()
    assert series.frame_of_reference_uid == uid_of("frame", "study")
    assert series.problems == series.warnings == ()
    assert series.files == paths
    assert series.shape == SHAPE
    assert series.spacing_mm == pytest.approx(SPACING, abs=1e-6)
    assert series.axcodes == "LPS"
    assert series.facts.spacing_mm == pytest.approx((0.75, 0.5, 2.5), abs=1e-6)
    expected = replace(T1_FACTS, images=6, spacing_mm=series.facts.spacing_mm)
    assert series.facts == expected


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_voxel_is_put_where_it_was_acquired(
    tmp_path: Path, geometry: str, enhanced: bool, oblique: bool
) -> None:
    affine = geometry_affine(geometry, shape=SHAPE, spacing=SPACING, oblique=oblique)
    write: Callable[..., Any] = write_enhanced if enhanced else write_series
    written = write(tmp_path / "made", IMAGE, affine)
    series = only([written] if enhanced else written)
    assert series.grid is not None
    assert series.grid.distance_mm(affine) < 1e-6


def test_the_order_of_the_files_and_their_numbers_change_nothing(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "a", IMAGE, AFFINE)
    rows = [only(files) for files in (paths, paths[::-1], sorted(paths))]
    plain = write_series(tmp_path / "b", IMAGE, AFFINE, replace(PLAIN, shuffled=False))
    assert [series.files for series in rows] == [paths] * 3
    assert only(plain).files == plain


def test_slices_from_the_other_end_are_turned_to_the_normal_and_stay_in_place(
    tmp_path: Path,
) -> None:
    downwards = AFFINE.copy()
    downwards[:3, 2] *= -1
    series = only(write_series(tmp_path, IMAGE, downwards))
    assert series.grid is not None
    last = series.grid.affine @ [0, 0, 5, 1]
    np.testing.assert_allclose(last, downwards @ [0, 0, 0, 1], atol=1e-6)


def test_series_are_listed_by_number_and_reports_left_out(tmp_path: Path) -> None:
    recipes = [replace(with_facts(PLAIN, number=n), seed=f"s{n}") for n in (12, 3, None)]
    files = [
        path
        for recipe in recipes
        for path in write_series(tmp_path / recipe.seed, IMAGE, AFFINE, recipe)
    ]
    no_image = {"Rows": None, "Columns": None, "PixelData": None}
    extra = {"SOPClassUID": BasicTextSRStorage, **no_image}
    report = replace(PLAIN, seed="report", extra=extra)
    files += write_series(tmp_path / "report", IMAGE[..., :1], AFFINE, report)
    assert [series.facts.number for series in list_series(files[::-1])] == [3, 12, None]


def test_one_uid_in_two_studies_is_two_series(tmp_path: Path) -> None:
    same = {"SeriesInstanceUID": "1.2.3"}
    first = write_series(tmp_path / "a", IMAGE, AFFINE, SeriesRecipe(extra=same))
    second = write_series(tmp_path / "b", IMAGE, AFFINE, SeriesRecipe(extra=same, study="other"))
    assert {series.study_uid for series in list_series([*first, *second])} == {
        study_uid(), study_uid(SeriesRecipe(study="other")),
    }  # fmt: skip


def part(folder: Path, image: NDArray[Any], name: str, **changes: Any) -> tuple[Path, ...]:
    """A volume in the one series of these tests."""
    extra = {key: value for key, value in changes.items() if key[0].isupper()}
    facts = {key: value for key, value in changes.items() if key[0].islower()}
    recipe = replace(with_facts(PLAIN, **facts), part=name, extra=extra)
    return write_series(folder / name, image, AFFINE, recipe)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (({"echo_time_ms": 80.0}, {"echo_time_ms": 12.0}), "echo time"),
        (({"b_value": 1000.0}, {"b_value": 0.0}), "b-value"),
        (({"b_value": 1000.0}, {"b_value": None}), "b-value"),
        (({"inversion_time_ms": 900.0}, {"inversion_time_ms": 700.0}), "inversion time"),
        (({"image_type": ("ORIGINAL", "PRIMARY", "P")}, {}), "image type"),
        (({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}), "point in time"),
        (({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}), "acquisition number"),
    ],
)
def test_volumes_at_one_place_are_told_apart_by_how_they_were_made(
    tmp_path: Path, changes: tuple[dict[str, Any], ...], words: str
) -> None:
    first = part(tmp_path, IMAGE, "a", **changes[0])
    second = part(tmp_path, OTHER, "b", **changes[1])
    found = list_series([*first[::2], *second, *first[1::2]])
    assert {series.files for series in found} == {first, second}
    assert [series.uid for series in found] == [f"{series_uid()}#1", f"{series_uid()}#2"]
    for number, series in enumerate(found, start=1):
        assert series.problems == ()
        told = f"volume {number} of 2 in its series, told apart by {words}"
        assert series.warnings == (told,)
        assert series.series_uid == series_uid()


def test_a_diffusion_series_is_split_by_strength_and_direction(tmp_path: Path) -> None:
    kinds = [(0.0, None), (1000.0, (1.0, 0.0, 0.0)), (1000.0, (0.0, 1.0, 0.0))]
    files: list[Path] = []
    for number, (strength, direction) in enumerate(kinds):
        along = {"DiffusionGradientOrientation": list(direction)} if direction else {}
        files += part(tmp_path, IMAGE + number, str(number), b_value=strength, **along)
    found = list_series(files)
    assert [series.facts.b_value for series in found] == [0.0, 1000.0, 1000.0]
    assert all(series.shape == SHAPE for series in found)


def test_frames_of_two_echoes_in_one_enhanced_file_are_two_volumes(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "a", IMAGE, AFFINE)
    dataset = dcmread(path)
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    again = dcmread(path)
    for group in again.PerFrameFunctionalGroupsSequence:
        group.MREchoSequence = dcmread(path).SharedFunctionalGroupsSequence[0].MREchoSequence
        group.MREchoSequence[0].EffectiveEchoTime = 90.0
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        [*groups, *again.PerFrameFunctionalGroupsSequence]
    )
    dataset.NumberOfFrames = 12
    dataset.PixelData = dataset.PixelData * 2
    dataset.save_as(path)
    found = list_series([path])
    assert [series.facts.echo_time_ms for series in found] == [2.98, 90.0]
    assert [{frame.index for frame in series.frames} for series in found] == [
        set(range(6)), set(range(6, 12)),
    ]  # fmt: skip


def test_the_three_planes_of_a_localiser_are_three_entries(tmp_path: Path) -> None:
    files: list[Path] = []
    for name, count in (("axial", 1), ("coronal", 3), ("sagittal", 2)):
        image = IMAGE[..., :count]
        affine = geometry_affine(name, shape=image.shape, spacing=SPACING)
        files += write_series(tmp_path / name, image, affine, replace(PLAIN, part=name))
    found = list_series(files)
    assert sorted(len(series.files) for series in found) == [1, 2, 3]
    assert all("told apart by orientation" in series.warnings[0] for series in found)
    assert [series.problems for series in found if len(series.files) == 1] == [("one slice only",)]


def test_rounded_directions_are_one_orientation(tmp_path: Path) -> None:
    paths = write_series(tmp_path, IMAGE, AFFINE)
    change_tag(paths[2], "ImageOrientationPatient", lambda old: [f"{float(n):.4f}" for n in old])
    assert only(paths).shape == SHAPE


def change_tag(path: Path, keyword: str, change: Callable[[Any], Any]) -> None:
    dataset = dcmread(path)
    setattr(dataset, keyword, change(dataset.get(keyword)))
    dataset.save_as(path)


def test_identical_copies_are_dropped_and_said(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "a", IMAGE, AFFINE)
    (tmp_path / "b").mkdir()
    copies = [Path(shutil.copy(path, tmp_path / "b")) for path in paths[:4]]
    series = only([*copies, *paths])
    assert series.shape == SHAPE
    assert series.warnings == ("identical copies of slices left out: 4",)
    assert series.facts.images == 6


def test_different_images_at_one_place_are_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "a", IMAGE, AFFINE)
    others = write_series(tmp_path / "b", OTHER, AFFINE, SeriesRecipe(part="b"))
    assert problem([*paths, others[1], others[3]]) == (
        "slices with different images at one place: 2"
    )


def test_a_copy_with_another_scale_is_another_image(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "a", IMAGE, AFFINE)
    scaled = SeriesRecipe(part="b", extra={"RescaleSlope": 2})
    others = write_series(tmp_path / "b", IMAGE, AFFINE, scaled)
    assert "different images at one place: 1" in problem([*paths, others[1]])


@pytest.mark.parametrize(
    ("left_out", "words"),
    [
        ((3,), "1 missing slice: between 5.0 and 10.0 mm from the first slice"),
        (
            (1, 2, 5),
            "3 missing slices: between 0.0 and 7.5, 10.0 and 15.0 mm from the first slice",
        ),
    ],
)
@pytest.mark.parametrize("enhanced", [False, True])
def test_missing_slices_are_counted_and_located(
    tmp_path: Path, left_out: tuple[int, ...], words: str, enhanced: bool
) -> None:
    image = np.repeat(IMAGE, 2, axis=2)
    recipe = SeriesRecipe(left_out=left_out)
    if enhanced:
        assert problem([write_enhanced(tmp_path / "a", image, AFFINE, recipe)]) == words
    else:
        assert problem(write_series(tmp_path / "a", image, AFFINE, recipe)) == words


def test_many_gaps_are_not_all_told(tmp_path: Path) -> None:
    image = np.repeat(IMAGE, 7, axis=2)
    recipe = SeriesRecipe(left_out=tuple(range(2, 40, 6)))
    words = problem(write_series(tmp_path, image, AFFINE, recipe))
    assert words.startswith("7 missing slices")
    assert words.endswith("and elsewhere")


def moved(paths: tuple[Path, ...], index: int, by_mm: tuple[float, float, float]) -> None:
    change_tag(
        paths[index],
        "ImagePositionPatient",
        lambda old: [f"{float(mm) + more:.8g}" for mm, more in zip(old, by_mm, strict=True)],
    )


def test_uneven_steps_are_said_in_mm(tmp_path: Path) -> None:
    flat = geometry_affine(shape=SHAPE, spacing=SPACING)
    paths = write_series(tmp_path, IMAGE, flat)
    moved(paths, 2, (0, 0, 0.5))
    assert problem(paths) == "uneven steps between slices, from 2.00 to 3.00 mm"


def test_a_jitter_of_rounding_is_tolerated(tmp_path: Path) -> None:
    flat = geometry_affine(shape=SHAPE, spacing=SPACING)
    paths = write_series(tmp_path, IMAGE, flat)
    moved(paths, 2, (0.04, -0.03, 0.05))
    assert only(paths).problems == ()


def test_steps_that_grow_little_by_little_are_uneven(tmp_path: Path) -> None:
    flat = geometry_affine(shape=SHAPE, spacing=SPACING)
    paths = write_series(tmp_path, IMAGE, flat)
    for index in (3, 4, 5):
        moved(paths, index, (0, 0, 0.2 * (index - 2)))
    assert problem(paths) == "uneven steps between slices, from 2.50 to 2.70 mm"


def test_one_slice_shifted_sideways_is_said(tmp_path: Path) -> None:
    flat = geometry_affine(shape=SHAPE, spacing=SPACING)
    paths = write_series(tmp_path, IMAGE, flat)
    moved(paths, 2, (0, 3, 0))
    assert "shifted sideways" in problem(paths)


@pytest.mark.parametrize("enhanced", [False, True])
def test_a_tilted_gantry_is_said_with_its_angle(tmp_path: Path, enhanced: bool) -> None:
    sheared = geometry_affine(shape=SHAPE, spacing=SPACING)
    sheared[1, 2] += 2.5 * np.tan(np.radians(12))
    recipe = SeriesRecipe()
    if enhanced:
        words = problem([write_enhanced(tmp_path / "a", IMAGE, sheared, recipe)])
    else:
        words = problem(write_series(tmp_path / "a", IMAGE, sheared, recipe))
    assert words == "slices sheared by 12.0° against their normal (tilted gantry)"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"ImagePositionPatient": None}, "6 of 6 slices do not say where they lie"),
        ({"ImageOrientationPatient": None}, "do not say where they lie"),
        ({"PixelSpacing": None}, "do not say where they lie"),
        ({"PixelSpacing": [0, 1]}, "do not say where they lie"),
        ({"PixelSpacing": [1e9, 1]}, "do not say where they lie"),
        ({"ImagePositionPatient": [0, 0, 1e9]}, "do not say where they lie"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "perpendicular"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]}, "perpendicular"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "perpendicular"),
        ({"ImageOrientationPatient": [1e200, 0, 0, 0, 1e200, 0]}, "perpendicular"),
        ({"RescaleSlope": 0}, "rescale slope"),
        ({"ImagePositionPatient": [1, 2, 3]}, "different images at one place: 5"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MOSAIC"]}, "a mosaic"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour images"),
    ],
)
def test_what_makes_no_volume_says_why(tmp_path: Path, extra: dict[str, Any], words: str) -> None:
    assert words in problem(write_series(tmp_path, IMAGE, AFFINE, SeriesRecipe(extra=extra)))


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("PixelSpacing", [0.8, 0.5], "slices of different pixel spacing"),
        ("FrameOfReferenceUID", "1.2.3", "slices of 2 frames of reference"),
        ("Columns", 7, "slices of 2 sizes (rows × columns)"),
        ("ImagePositionPatient", None, "1 of 6 slices do not say where they lie"),
    ],
)
def test_one_slice_unlike_the_others_is_said(
    tmp_path: Path, keyword: str, value: Any, words: str
) -> None:
    paths = write_series(tmp_path, IMAGE, AFFINE)
    change_tag(paths[2], keyword, lambda _: value)
    assert words in problem(paths)


def test_one_slice_alone_is_no_volume(tmp_path: Path) -> None:
    assert problem(write_series(tmp_path, IMAGE[..., :1], AFFINE)) == "one slice only"


def test_a_refused_file_is_told_by_its_number_and_never_by_its_name(tmp_path: Path) -> None:
    paths = write_series(tmp_path, IMAGE, AFFINE)
    paths[4].write_bytes(b"")
    with pytest.raises(ImageError, match=r"an empty file \(file 5 of 6\)") as caught:
        list_series(paths)
    assert paths[4].name not in str(caught.value)


def test_limits_hold_for_all_files_together(tmp_path: Path) -> None:
    paths = write_series(tmp_path, IMAGE, AFFINE)
    with pytest.raises(ImageError, match="at most 5 files"):
        list_series(paths, limits=DicomLimits(files=5))
    (series,) = list_series(paths, limits=DicomLimits(voxels=400))
    assert series.problems == ("432 voxels, more than 400",)
