"""A source series made ready: its grid, its references, and the patient kept apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_core.dicom.series import Series, list_series
from model_core.dicom.sources import sources_of
from model_core.dicom.volume import read_series
from model_core.errors import ImageError
from tests.dicom_series import GEOMETRIES, PLANTED, SeriesRecipe
from tests.model_core.dicom.label_maps import SHAPE, SPACING, case_of


@pytest.mark.parametrize("enhanced", [False, True], ids=["plain", "enhanced"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_grid_is_that_of_the_volume_that_is_read(
    geometry: str, enhanced: bool, tmp_path: Path
) -> None:
    case = case_of(tmp_path, geometry, oblique=True, enhanced=enhanced)
    (series,) = list_series(case.files)
    assert case.sources.grid.matches(read_series(series).grid, 1e-9)
    assert case.sources.grid.shape == SHAPE
    np.testing.assert_allclose(case.sources.grid.affine, case.affine, atol=1e-9)


def test_headers_are_in_the_order_of_the_slices(tmp_path: Path) -> None:
    case = case_of(tmp_path, "coronal")
    for index, header in enumerate(case.sources.headers):
        place = np.array([float(mm) for mm in header.ImagePositionPatient]) * (-1, -1, 1)
        np.testing.assert_allclose(place, case.affine[:3, 3] + index * case.affine[:3, 2])


def test_every_instance_is_there_once(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    found = [header.SOPInstanceUID for header in case.sources.headers]
    assert sorted(found) == sorted(header.SOPInstanceUID for header in case.headers())


def test_no_header_for_the_writer_carries_a_word_of_the_patient(tmp_path: Path) -> None:
    found = case_of(tmp_path, recipe=SeriesRecipe(patient=PLANTED)).sources
    said = "".join(str(header) for header in found.headers)
    assert not [word for word in PLANTED.values() if len(word) > 1 and word in said]
    assert str(found.identity.PatientName) == PLANTED["PatientName"]
    assert found.identity.PatientID == PLANTED["PatientID"]


def test_people_and_places_that_are_not_of_patient_or_study_are_not_repeated(
    tmp_path: Path,
) -> None:
    found = case_of(tmp_path, recipe=SeriesRecipe(patient=PLANTED)).sources
    for keyword in ("InstitutionName", "StationName", "OperatorsName", "PatientAddress"):
        assert keyword not in found.identity


@pytest.mark.parametrize("enhanced", [False, True], ids=["plain", "enhanced"])
def test_the_distance_of_slices_is_what_positions_say_not_what_a_tag_says(
    enhanced: bool, tmp_path: Path
) -> None:
    extra: dict[str, Any] = {} if enhanced else {"SpacingBetweenSlices": 0.7}
    recipe = SeriesRecipe(extra=extra, thickness_mm=1.5)
    header = case_of(tmp_path, oblique=True, recipe=recipe, enhanced=enhanced).sources.headers[0]
    if enhanced:
        header = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert header.SpacingBetweenSlices == SPACING[2]
    assert header.SliceThickness == 1.5


@pytest.mark.parametrize("keyword", ["SliceThickness", "SpacingBetweenSlices", "PatientName"])
def test_tags_that_place_nothing_may_be_missing(keyword: str, tmp_path: Path) -> None:
    found = case_of(tmp_path, recipe=SeriesRecipe(extra={keyword: None})).sources
    assert found.headers[0].SliceThickness == SPACING[2]
    assert "PatientName" in found.identity


def series_of(folder: Path, **recipe: Any) -> Series:
    (series,) = list_series(case_of(folder, recipe=SeriesRecipe(**recipe)).files)
    return series


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"grid": None, "problems": ("a gap",)}, "one volume, got a gap"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2"}, "MR images"),
        ({"frame_of_reference_uid": ""}, "frame of reference"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4.1"}, "one enhanced instance, got 9"),
    ],
    ids=["problems", "CT", "frame of reference", "several enhanced"],
)
def test_a_series_that_cannot_be_referred_to_is_refused(
    change: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    broken = replace(series_of(tmp_path), **change)
    with pytest.raises(ImageError, match=expected) as caught:
        sources_of(broken, argument="t1ce")
    assert caught.value.argument == "t1ce"
