"""What a SEG says of its segments, its source and itself, and what is refused."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from model_core.dicom.codes import SEGMENTS, STRUCTURES
from model_core.dicom.derived import Algorithm, Output, tracking_uid
from model_core.dicom.seg import SEG_KINDS, SegKind, encode_seg, seg_reference
from model_core.dicom.series import list_series
from model_core.dicom.sources import sources_of
from model_core.errors import ImageError, OptionError
from tests.dicom_series import PLANTED, SeriesRecipe, write_series
from tests.model_core.dicom.label_maps import (
    ALGORITHM,
    OUTPUT,
    SPACING,
    Case,
    case_of,
    decoded_by_hand,
    on_grid,
    read,
    sources_in,
)

EACH_KIND = pytest.mark.parametrize("kind", SEG_KINDS)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case_of(
        tmp_path_factory.mktemp("seg"),
        "coronal",
        oblique=True,
        recipe=SeriesRecipe(patient=PLANTED),
    )


@cache
def usual(case: Case, kind: SegKind = "BINARY") -> Dataset:
    return read(encode(case, kind=kind))


def encode(case: Case, **changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "labels": case.labels,
        "affine": case.affine,
        "sources": case.sources,
        "algorithm": ALGORITHM,
        "output": OUTPUT,
    } | changes
    labels, affine, sources = (arguments.pop(name) for name in ("labels", "affine", "sources"))
    return encode_seg(labels, affine, sources, **arguments)


def said(numbers: Any) -> list[float]:
    return [float(number) for number in numbers]


def segments(seg: Dataset) -> Mapping[int, Dataset]:
    return {int(item.SegmentNumber): item for item in seg.SegmentSequence}


# ---------------------------------------------------------------- the same run, the same bytes


@EACH_KIND
def test_the_same_run_gives_the_same_bytes(case: Case, kind: SegKind) -> None:
    assert encode(case, kind=kind) == encode(case, kind=kind)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.zeros((7, 6, 9), np.uint8)},
        {"algorithm": replace(ALGORITHM, weights_sha256="f" * 64)},
        {"algorithm": replace(ALGORITHM, parameters={"tta": "none"})},
        {"output": replace(OUTPUT, created=OUTPUT.created + timedelta(seconds=1))},
        {"output": replace(OUTPUT, series_description="another")},
        {"kind": "LABELMAP"},
    ],
    ids=["labels", "weights", "parameters", "time", "description", "kind"],
)
def test_another_run_is_another_instance_of_another_series(
    case: Case, change: dict[str, Any]
) -> None:
    first, second = usual(case), read(encode(case, **change))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.StudyInstanceUID == second.StudyInstanceUID


def test_a_structure_is_tracked_by_weights_and_source_not_by_voxels_or_time(case: Case) -> None:
    def uids(**changes: Any) -> list[str]:
        return [item.TrackingUID for item in segments(read(encode(case, **changes))).values()]

    assert len(set(uids())) == 3
    later = replace(OUTPUT, created=OUTPUT.created + timedelta(days=1))
    assert uids() == uids(output=later, labels=np.ascontiguousarray(case.labels[::-1, :, :]))
    other = replace(ALGORITHM, weights_sha256="f" * 64)
    assert not set(uids()) & set(uids(algorithm=other))


def test_every_uid_is_valid(case: Case) -> None:
    from pydicom.uid import UID

    seg = usual(case)
    for uid in (seg.SOPInstanceUID, seg.SeriesInstanceUID, segments(seg)[1].TrackingUID):
        assert UID(uid).is_valid
        assert len(uid) <= 64


# ---------------------------------------------------------------- segments


@EACH_KIND
def test_each_label_is_a_segment_with_its_number_codes_colour_and_tracking(
    case: Case, kind: SegKind
) -> None:
    found = segments(usual(case, kind))
    assert set(found) - {0} == {1, 2, 3}
    for name in SEGMENTS:
        structure = STRUCTURES[name]
        item = found[int(structure.labels[0])]
        assert item.SegmentLabel == structure.text
        coded = item.SegmentedPropertyTypeCodeSequence[0]
        assert (coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning) == (
            structure.kind.value,
            structure.kind.scheme,
            structure.kind.meaning,
        )
        assert item.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
        assert item.AnatomicRegionSequence[0].CodeMeaning == "Brain"
        colour = structure.colour()
        assert colour is not None
        assert tuple(item.RecommendedDisplayCIELabValue) == colour.value
        assert item.TrackingID == name
        assert item.TrackingUID == tracking_uid(case.sources, ALGORITHM, name)


def test_each_segment_names_the_algorithm_its_version_family_weights_and_parameters(
    case: Case,
) -> None:
    for item in segments(usual(case)).values():
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        assert item.SegmentAlgorithmName == "segmamba-small"
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmName == "segmamba-small"
        assert algorithm.AlgorithmVersion == "1.2.0"
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
        assert algorithm.AlgorithmParameters == f"tta=full,weights_sha256={'0123456789abcdef' * 4}"


def test_series_dates_and_device_are_those_that_were_handed_over(case: Case) -> None:
    seg = usual(case)
    assert seg.SeriesNumber == 9001
    assert seg.SeriesDescription == OUTPUT.series_description
    dates = {seg.ContentDate, seg.SeriesDate, seg.InstanceCreationDate}
    assert dates == {"20260304"}
    times = {seg.ContentTime, seg.SeriesTime, seg.InstanceCreationTime}
    assert times == {"050607.890000"}
    assert seg.ManufacturerModelName == "segmamba-small"
    assert seg.DeviceSerialNumber == "0123456789abcdef"
    assert seg.ContentQualification == "RESEARCH"


# ---------------------------------------------------------------- source


def test_every_source_instance_is_referred_to(case: Case) -> None:
    seg = usual(case)
    wanted = {one.SOPInstanceUID for one in case.headers()}
    assert {item.ReferencedSOPInstanceUID for item in seg.SourceImageSequence} == wanted
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == case.headers()[0].SeriesInstanceUID
    assert {i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence} == wanted
    assert seg.StudyInstanceUID == case.headers()[0].StudyInstanceUID
    assert seg.FrameOfReferenceUID == case.headers()[0].FrameOfReferenceUID


@EACH_KIND
def test_each_frame_refers_to_its_slice_and_repeats_its_place_number_for_number(
    case: Case, kind: SegKind
) -> None:
    seg = usual(case, kind)
    by_uid = {one.SOPInstanceUID: one for one in case.headers()}
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert len(seg.PerFrameFunctionalGroupsSequence) > 3
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert image.SpatialLocationsPreserved == "YES"
        source = by_uid[image.ReferencedSOPInstanceUID]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert said(position) == said(source.ImagePositionPatient)
        orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        assert said(orientation) == said(source.ImageOrientationPatient)
        measures = shared.PixelMeasuresSequence[0]
        assert said(measures.PixelSpacing) == said(source.PixelSpacing)
        assert measures.SpacingBetweenSlices == SPACING[2]


def test_the_frames_of_an_enhanced_source_are_referred_to_by_number(tmp_path: Path) -> None:
    case = case_of(tmp_path, "coronal", enhanced=True)
    (enhanced,) = case.headers()
    assert_frames_are_found(usual(case), enhanced)


def test_one_of_two_volumes_in_an_enhanced_source_is_referred_to_by_its_own_frames(
    tmp_path: Path,
) -> None:
    case = case_of(tmp_path, "coronal", enhanced=True)
    (enhanced,) = case.headers()
    _add_second_volume(enhanced)
    enhanced.save_as(case.files[0])
    first, second = (sources_of(series) for series in list_series(case.files))
    assert not set(first.frame_numbers) & set(second.frame_numbers)
    uids = set()
    for sources in (first, second):
        seg = read(encode(case, sources=sources))
        assert_frames_are_found(seg, enhanced)
        found = {
            int(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
            for frame in seg.PerFrameFunctionalGroupsSequence
        }
        assert found < set(sources.frame_numbers)
        uids.add(seg.SOPInstanceUID)
    assert len(uids) == 2


def _add_second_volume(enhanced: Dataset) -> None:
    """The same slices once more, at another point in time, between the others."""
    groups = []
    for group in enhanced.PerFrameFunctionalGroupsSequence:
        later = deepcopy(group)
        group.FrameContentSequence[0].TemporalPositionIndex = 1
        later.FrameContentSequence[0].TemporalPositionIndex = 2
        groups += [group, later]
    enhanced.PerFrameFunctionalGroupsSequence = groups
    enhanced.NumberOfFrames = len(groups)
    enhanced.PixelData = enhanced.PixelData * 2


def assert_frames_are_found(seg: Dataset, enhanced: Dataset) -> None:
    (only,) = seg.SourceImageSequence
    assert only.ReferencedSOPInstanceUID == enhanced.SOPInstanceUID
    groups = enhanced.PerFrameFunctionalGroupsSequence
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        source = groups[int(image.ReferencedFrameNumber) - 1]
        assert said(frame.PlanePositionSequence[0].ImagePositionPatient) == said(
            source.PlanePositionSequence[0].ImagePositionPatient
        )


def test_the_patient_and_the_study_are_those_of_the_source(case: Case) -> None:
    seg = usual(case)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge",
                    "StudyID", "AccessionNumber", "ReferringPhysicianName"):  # fmt: skip
        assert seg[keyword].value == PLANTED[keyword]
    assert seg.StudyDate == case.headers()[0].StudyDate


def test_a_name_outside_ascii_keeps_its_spelling(tmp_path: Path) -> None:
    recipe = SeriesRecipe(
        patient={"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Änne"}
    )
    other = case_of(tmp_path, recipe=recipe)
    seg = read(encode(other))
    assert seg.SpecificCharacterSet == "ISO_IR 100"
    assert str(seg.PatientName) == "Müller^Änne"


@pytest.mark.parametrize(
    "patient",
    [
        {"PatientName": "Zyxplanted"},
        {"PatientSex": "UNKNOWN"},
        {"PatientBirthDate": "not a date"},
        {"PatientID": "Zyxplanted" * 9},
        {"StudyDate": "yesterday"},
    ],
    ids=lambda patient: next(iter(patient)),
)
def test_odd_words_about_the_patient_stop_nothing_and_are_said_to_nobody(
    patient: dict[str, str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # making such a header warns already
        other = case_of(tmp_path, recipe=SeriesRecipe(patient=patient))
    caplog.clear()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = encode(other)
    assert not said
    assert not caplog.records
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in patient.items():
            assert str(read(data)[keyword].value) == value


# ---------------------------------------------------------------- voxels


def test_empty_frames_are_left_out(case: Case) -> None:
    for kind, expected in (
        ("BINARY", sum(int((case.labels == n).any((0, 1)).sum()) for n in (1, 2, 3))),
        ("LABELMAP", int(case.labels.any((0, 1)).sum())),
    ):
        assert usual(case, kind).NumberOfFrames == expected


@EACH_KIND
def test_a_label_that_is_absent_is_described_all_the_same(case: Case, kind: SegKind) -> None:
    labels = np.where(case.labels == 3, 0, case.labels).astype(np.uint8)
    seg = read(encode(case, labels=labels, kind=kind))
    assert set(segments(seg)) - {0} == {1, 2, 3}
    found = on_grid(*decoded_by_hand(seg), affine=case.affine, shape=(7, 6, 9))
    np.testing.assert_array_equal(found, labels)


@EACH_KIND
def test_an_empty_map_is_an_object_of_empty_frames(case: Case, kind: SegKind) -> None:
    seg = read(encode(case, labels=np.zeros_like(case.labels), kind=kind))
    assert set(segments(seg)) - {0} == {1, 2, 3}
    assert seg.NumberOfFrames == (27 if kind == "BINARY" else 9)
    assert not decoded_by_hand(seg)[1].size


def test_an_affine_of_single_precision_is_the_same_grid(case: Case) -> None:
    rough = case.affine.astype(np.float32).astype(np.float64)
    assert encode(case, affine=rough) == encode(case)


def test_a_stack_that_lies_between_two_orientations_is_recognised(tmp_path: Path) -> None:
    """At 45 degrees rounding decides the name of a grid; the places decide here."""
    case = case_of(tmp_path)
    turn = np.eye(4)
    c = np.sqrt(0.5)
    turn[:2, :2] = [[c, -c], [c, c]]
    affine = turn @ case.affine
    sources = sources_in(write_series(tmp_path / "turned", case.labels * 100, affine))
    wobble = np.eye(4)
    wobble[:2, :2] += np.array([[0, 1e-6], [-1e-6, 0]])
    one = encode_seg(case.labels, affine @ wobble, sources, algorithm=ALGORITHM, output=OUTPUT)
    other = encode_seg(
        case.labels, affine @ np.linalg.inv(wobble), sources, algorithm=ALGORITHM, output=OUTPUT
    )
    assert one == other
    found = on_grid(*decoded_by_hand(read(one)), affine=affine, shape=(7, 6, 9))
    np.testing.assert_array_equal(found, case.labels)


# ---------------------------------------------------------------- refusals


def moved(case: Case, axis: int, mm: float) -> dict[str, Any]:
    affine = case.affine.copy()
    affine[axis, 3] += mm
    return {"affine": affine}


def test_another_grid_is_refused(case: Case) -> None:
    half = case.affine.copy()
    half[:3, 2] /= 2
    mirrored = case.affine.copy()
    mirrored[0] *= -1
    for change in (
        moved(case, 0, 0.5),
        moved(case, 2, SPACING[2]),
        {"affine": half},
        {"affine": mirrored},
        {"labels": case.labels[1:]},
        {"labels": np.pad(case.labels, 1)},
    ):
        with pytest.raises(ImageError, match="grid of the source series"):
            encode(case, **change)


@pytest.mark.parametrize(
    "labels",
    [
        np.full((7, 6, 9), 4, np.uint8),
        np.zeros((7, 6, 9), np.int16),
        np.zeros((7, 6), np.uint8),
    ],
    ids=["value 4", "int16", "2-D"],
)
def test_what_are_no_internal_labels_is_refused(case: Case, labels: Any) -> None:
    with pytest.raises(ImageError, match="internal labels"):
        encode(case, labels=labels)


def test_an_unknown_kind_is_refused(case: Case) -> None:
    with pytest.raises(OptionError, match="BINARY"):
        encode(case, kind="FRACTIONAL")


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"name": ""}, "algorithm.name"),
        ({"name": "x" * 65}, "algorithm.name"),
        ({"version": "1\\2"}, "algorithm.version"),
        ({"weights_sha256": "abc"}, "algorithm.weights_sha256"),
    ],
)
def test_an_algorithm_that_fits_no_tag_is_refused(change: dict[str, str], argument: str) -> None:
    with pytest.raises(OptionError, match=argument):
        replace(ALGORITHM, **change)


@pytest.mark.parametrize("change", [{"series_number": 0}, {"series_description": "a\nb"}])
def test_a_series_that_fits_no_tag_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        replace(OUTPUT, **change)


def test_a_header_that_cannot_be_written_from_is_refused_without_a_word_of_it(case: Case) -> None:
    broken = replace(case.sources, headers=case.sources.headers[:-1])
    with pytest.raises(ImageError, match="headers of a valid MR series") as caught:
        encode(case, sources=broken)
    assert caught.value.__suppress_context__


# ---------------------------------------------------------------- reference


@EACH_KIND
def test_a_reference_is_read_back_from_the_object(case: Case, kind: SegKind) -> None:
    data = encode(case, kind=kind)
    seg, reference = read(data), seg_reference(data)
    assert reference.sop_instance_uid == seg.SOPInstanceUID
    assert reference.sop_class_uid == seg.SOPClassUID
    assert reference.series_uid == seg.SeriesInstanceUID
    assert reference.study_uid == case.sources.study_uid
    assert reference.tracking_uids == {
        name: tracking_uid(case.sources, ALGORITHM, name) for name in SEGMENTS
    }


def test_no_reference_is_read_from_anything_else() -> None:
    with pytest.raises(ImageError):
        seg_reference(b"nothing")


def test_algorithm_and_output_are_values() -> None:
    assert Algorithm(name="a", version="1", weights_sha256="0" * 64) == Algorithm(
        name="a", version="1", weights_sha256="0" * 64
    )
    assert Output(created=OUTPUT.created, series_number=1, series_description="x") != OUTPUT


@pytest.mark.slow
def test_whatever_bytes_a_header_is_damaged_with_there_is_an_object_or_a_refusal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = case_of(tmp_path, recipe=SeriesRecipe(patient=PLANTED))
    (series,) = list_series(other.files)
    path, random = series.frames[0].path, np.random.default_rng(3)
    good = path.read_bytes()
    written, refusals = 0, []
    for _ in range(80):
        damaged = np.frombuffer(good, np.uint8).copy()
        places = random.integers(132, series.frames[0].pixels_at, random.choice([1, 1, 2, 5]))
        damaged[places] = random.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        try:
            encode(other, sources=sources_of(series))
            written += 1
        except ImageError as error:
            refusals.append(str(error))
    assert written > 50
    assert not [words for words in refusals if "lanted" in words]
    assert not caplog.records
