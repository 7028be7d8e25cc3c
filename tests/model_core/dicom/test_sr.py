"""What a structured report says: numbers, units, references into the SEG, who measured."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from model_core.dicom.codes import SEGMENTS, STRUCTURES
from model_core.dicom.seg import SEG_KINDS, SegKind, encode_seg, seg_reference
from model_core.dicom.sr import RegionMeasurement, encode_sr
from model_core.errors import ImageError, OptionError
from tests.dicom_series import PLANTED, SeriesRecipe
from tests.model_core.dicom.label_maps import ALGORITHM, OUTPUT, SR_OUTPUT, Case, case_of, read

MEASURED = (
    RegionMeasurement(name="NCR", volume_ml=1.23456, longest_mm=20.1234),
    RegionMeasurement(name="ED", volume_ml=40.5),
    RegionMeasurement(
        name="ET", volume_ml=12.0, longest_mm=31.0, major_mm=28.25, perpendicular_mm=17.5
    ),
    RegionMeasurement(name="TC", volume_ml=13.23456, longest_mm=33.0),
    RegionMeasurement(name="WT", volume_ml=53.73456, longest_mm=61.0),
)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case_of(
        tmp_path_factory.mktemp("sr"), "axial", oblique=True, recipe=SeriesRecipe(patient=PLANTED)
    )


@cache
def seg_of(case: Case, kind: SegKind = "BINARY") -> bytes:
    return encode_seg(
        case.labels, case.affine, case.sources, algorithm=ALGORITHM, output=OUTPUT, kind=kind
    )


def report_of(case: Case, measured: Any = MEASURED, **changes: Any) -> bytes:
    arguments = {"algorithm": ALGORITHM, "output": SR_OUTPUT} | changes
    return encode_sr(measured, seg_of(case), case.sources, **arguments)


@cache
def usual_report(case: Case) -> bytes:
    return report_of(case)


def groups_of(report: bytes) -> dict[str, Dataset]:
    """Measurement groups by tracking identifier, read with pydicom alone."""
    (measurements,) = named(read(report), "126010")
    return {named(group, "112039")[0].TextValue: group for group in named(measurements, "125007")}


def named(item: Dataset, code: str) -> list[Dataset]:
    """The children of a content item with a concept name."""
    return [
        child
        for child in item.ContentSequence
        if child.ConceptNameCodeSequence[0].CodeValue == code
    ]


def value_of(item: Dataset, code: str) -> tuple[float, str]:
    (number,) = named(item, code)
    (measured,) = number.MeasuredValueSequence
    return float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue


def test_every_structure_has_a_group_with_its_volume_in_millilitres(case: Case) -> None:
    groups = groups_of(usual_report(case))
    assert list(groups) == [measured.name for measured in MEASURED]
    for measured in MEASURED:
        value, unit = value_of(groups[measured.name], "118565006")
        assert (value, unit) == (round(measured.volume_ml, 3), "mL")


def test_diameters_are_there_where_they_were_measured_and_only_there(case: Case) -> None:
    groups = groups_of(usual_report(case))
    assert value_of(groups["NCR"], "81827009") == (20.12, "mm")
    (derivation,) = named(named(groups["NCR"], "81827009")[0], "121401")
    assert derivation.ConceptCodeSequence[0].CodeMeaning == "Maximum"
    assert value_of(groups["ET"], "131187009") == (28.25, "mm")
    assert value_of(groups["ET"], "131189007") == (17.5, "mm")
    assert value_of(groups["ET"], "BIDIM_PRODUCT") == (494.38, "mm2")
    assert not named(groups["ED"], "81827009")
    for name in ("NCR", "ED", "TC", "WT"):
        assert not named(groups[name], "131187009")
        assert not named(groups[name], "BIDIM_PRODUCT")


@pytest.mark.parametrize("kind", SEG_KINDS)
def test_each_label_points_at_its_segment_and_shares_their_tracking_uid(
    case: Case, kind: SegKind
) -> None:
    data = seg_of(case, kind)
    seg = read(data)
    report = encode_sr(MEASURED, data, case.sources, algorithm=ALGORITHM, output=SR_OUTPUT)
    tracked = {int(s.SegmentNumber): s.get("TrackingUID") for s in seg.SegmentSequence}
    groups = groups_of(report)
    for number, name in enumerate(SEGMENTS, start=1):
        (image,) = named(groups[name], "121191")
        (target,) = image.ReferencedSOPSequence
        assert target.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert target.ReferencedSOPClassUID == seg.SOPClassUID
        assert target.ReferencedSegmentNumber == number
        assert tracked[number] == named(groups[name], "112040")[0].UID
        assert case.sources.series_uid == named(groups[name], "121232")[0].UID
        assert groups[name].ContentTemplateSequence[0].TemplateIdentifier == "1411"


def test_regions_are_on_no_segment_and_are_tracked_on_their_own(case: Case) -> None:
    groups = groups_of(usual_report(case))
    for name in ("TC", "WT"):
        assert not named(groups[name], "121191")
        assert groups[name].ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert len({named(group, "112040")[0].UID for group in groups.values()}) == len(MEASURED)


def test_each_group_says_what_it_is_in_codes(case: Case) -> None:
    for name, group in groups_of(usual_report(case)).items():
        (finding,) = named(group, "121071")
        kind = STRUCTURES[name].kind  # type: ignore[index]
        assert finding.ConceptCodeSequence[0].CodeValue == kind.value
        (site,) = named(group, "363698007")
        assert site.ConceptCodeSequence[0].CodeValue == "12738006"
        assert named(group, "111001")[0].TextValue == "segmamba-small"
        assert named(group, "111003")[0].TextValue == "1.2.0"


def test_the_observer_is_a_device_and_nobody_has_verified_the_report(case: Case) -> None:
    report = read(usual_report(case))
    (kind,) = named(report, "121005")
    assert kind.ConceptCodeSequence[0].CodeMeaning == "Device"
    assert named(report, "121013")[0].TextValue == "segmamba-service"
    assert named(report, "121015")[0].TextValue == "segmamba-small"
    assert (report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag) == (
        "COMPLETE",
        "PRELIMINARY",
        "UNVERIFIED",
    )
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_the_segmentation_and_every_source_instance_are_evidence(case: Case) -> None:
    report = read(usual_report(case))
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    found = {
        item.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    seg = read(seg_of(case))
    assert found == {seg.SOPInstanceUID, *(one.SOPInstanceUID for one in case.headers())}


def test_highdicom_reads_the_groups(case: Case) -> None:
    from highdicom.sr import Comprehensive3DSR

    content = Comprehensive3DSR.from_dataset(dcmread(BytesIO(usual_report(case)))).content
    groups = content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == list(SEGMENTS)
    for group, measured in zip(groups, MEASURED, strict=False):
        volume = group.get_measurements()[0]
        assert volume.value == round(measured.volume_ml, 3)
        assert volume.unit.value == "mL"
    regions = content.get_image_measurement_groups()
    assert [group.tracking_identifier for group in regions] == ["TC", "WT"]


def test_the_same_report_has_the_same_bytes_and_another_another_uid(case: Case) -> None:
    assert report_of(case) == usual_report(case)
    other = report_of(case, [replace(MEASURED[0], volume_ml=1.0), *MEASURED[1:]])
    assert read(other).SOPInstanceUID != read(usual_report(case)).SOPInstanceUID


def test_a_reference_is_as_good_as_the_object_itself(case: Case) -> None:
    data = seg_of(case)
    by_reference = encode_sr(
        MEASURED, seg_reference(data), case.sources, algorithm=ALGORITHM, output=SR_OUTPUT
    )
    assert by_reference == usual_report(case)


def test_the_patient_and_the_study_are_those_of_the_source(case: Case) -> None:
    report = read(usual_report(case))
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber"):
        assert report[keyword].value == PLANTED[keyword]
    assert report.StudyInstanceUID == case.sources.study_uid


def test_an_empty_structure_has_a_volume_of_nothing_and_no_diameter(case: Case) -> None:
    group = groups_of(report_of(case, [RegionMeasurement(name="ET", volume_ml=0.0)]))["ET"]
    assert value_of(group, "118565006") == (0.0, "mL")
    assert not named(group, "81827009")


@pytest.mark.parametrize(
    "numbers",
    [
        {"volume_ml": -1.0},
        {"volume_ml": float("nan")},
        {"volume_ml": 1.0, "longest_mm": float("inf")},
        {"volume_ml": 1.0, "major_mm": 3.0},
        {"volume_ml": 1.0, "perpendicular_mm": 3.0},
        {"volume_ml": 1.0, "name": "tumour"},
    ],
    ids=str,
)
def test_what_cannot_have_been_measured_is_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        RegionMeasurement(**{"name": "ET"} | numbers)


def test_no_measurement_or_one_twice_is_refused(case: Case) -> None:
    for measured in ([], [MEASURED[0], MEASURED[0]]):
        with pytest.raises(OptionError, match="each structure once"):
            report_of(case, measured)


def test_a_segmentation_of_another_study_is_refused(case: Case, tmp_path: Path) -> None:
    other = case_of(tmp_path, recipe=SeriesRecipe(study="another")).sources
    with pytest.raises(ImageError, match="study"):
        encode_sr(MEASURED, seg_of(case), other, algorithm=ALGORITHM, output=SR_OUTPUT)
