"""Measurements as a DICOM Structured Report (TID 1500) that points into a Segmentation.

One measurement group a structure: volume, and diameters where they were measured. NCR, ED and ET
are volumetric regions (TID 1411): they refer to their segment and carry its tracking UID. TC and WT
are unions of segments, and a group of TID 1411 refers to one: readers take the first number of
several and so put the whole on the part. They are groups without a region (TID 1501), with a
tracking UID of their own. The report is complete, preliminary and unverified: no person has looked
at it.

Values are rounded to what a voxel grid can tell: volumes to 0.001 mL, lengths to 0.01 mm.

Sources: PS3.16, TID 1500, 1411, 1501, 1419, 300, 1204, 1002, 1004, 4108, 4019; PS3.3, A.35.13
(Comprehensive 3D SR); RANO 2.0 (Wen et al., J Clin Oncol 2023) for the bidimensional product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from model_core.dicom import codes
from model_core.dicom.codes import (
    SEGMENTS,
    STRUCTURE_NAMES,
    STRUCTURES,
    Concept,
    StructureName,
)
from model_core.dicom.derived import (
    MANUFACTURER,
    Algorithm,
    Output,
    algorithm_family,
    common_arguments,
    finished,
    quiet_writing,
    software_version,
    tracking_uid,
    uid_of,
)
from model_core.dicom.seg import SegReference, seg_reference
from model_core.dicom.sources import Sources
from model_core.errors import ImageError, OptionError

if TYPE_CHECKING:
    from highdicom.sr import (
        AlgorithmIdentification,
        Measurement,
        MeasurementReport,
        MeasurementsAndQualitativeEvaluations,
        ReferencedSegment,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )
    from pydicom.dataset import Dataset


class _Row(NamedTuple):
    """How an attribute of `RegionMeasurement` is written."""

    attribute: str
    name: Concept
    digits: int
    unit: Concept
    derivation: Concept | None = None


_ROWS: Final = (
    _Row("volume_ml", codes.VOLUME, 3, codes.MILLILITRE),
    _Row("longest_mm", codes.DIAMETER, 2, codes.MILLIMETRE, codes.MAXIMUM),
    _Row("major_mm", codes.MAJOR_AXIS, 2, codes.MILLIMETRE),
    _Row("perpendicular_mm", codes.PERPENDICULAR_AXIS, 2, codes.MILLIMETRE),
    _Row("product_mm2", codes.BIDIMENSIONAL_PRODUCT, 2, codes.SQUARE_MILLIMETRE),
)


@dataclass(frozen=True, kw_only=True)
class RegionMeasurement:
    """What was measured of one label or region.

    Attributes:
        name: the structure.
        volume_ml: in millilitres.
        longest_mm: longest diameter in space, in mm; None where the structure is empty.
        major_mm: longest diameter on the axial slice with the largest product, in mm.
        perpendicular_mm: the longest diameter at right angles to it on that slice, in mm.

    Raises:
        OptionError: an unknown name, a number that is negative or not finite, or one of the two
            diameters in the plane without the other.
    """

    name: StructureName
    volume_ml: float
    longest_mm: float | None = None
    major_mm: float | None = None
    perpendicular_mm: float | None = None

    def __post_init__(self) -> None:
        if self.name not in STRUCTURE_NAMES:
            raise _refusal("name", f"one of {', '.join(STRUCTURE_NAMES)}", "another")
        for argument in ("volume_ml", "longest_mm", "major_mm", "perpendicular_mm"):
            number = getattr(self, argument)
            if number is not None and not (isfinite(number) and number >= 0):
                raise _refusal(argument, "a finite number of 0 or more", f"{number}")
        if (self.major_mm is None) != (self.perpendicular_mm is None):
            raise _refusal("perpendicular_mm", "both diameters in the plane or none", "one")

    @property
    def product_mm2(self) -> float | None:
        """Product of the two diameters in the plane, in mm²."""
        if self.major_mm is None or self.perpendicular_mm is None:
            return None
        return self.major_mm * self.perpendicular_mm


def encode_sr(
    measurements: Sequence[RegionMeasurement],
    seg: bytes | SegReference,
    sources: Sources,
    *,
    algorithm: Algorithm,
    output: Output,
) -> bytes:
    """Write measurements as a Comprehensive 3D SR.

    Args:
        measurements: at least one, each structure at most once.
        seg: the SEG that was measured, or what `seg_reference` read from it.
        sources: the series that the SEG was drawn on.
        algorithm: the model, as in the SEG.
        output: name, number and date of the new series.

    Returns:
        The bytes of a DICOM file, the same for the same arguments.

    Raises:
        OptionError: no measurement, or a structure twice.
        ImageError: the SEG belongs to another study, or the headers cannot be written from.
    """
    _check(measurements)
    reference = seg_reference(seg) if isinstance(seg, bytes) else seg
    if reference.study_uid != sources.study_uid:
        raise ImageError(
            "seg",
            expected="a SEG of the source's study",
            got="one of another study",
            way_out="Hand over the series that the SEG was made for.",
        )
    uids = _uids(measurements, reference, algorithm, output)
    with quiet_writing():
        groups = [_group(m, reference, sources, algorithm) for m in measurements]
        report = _document(_report(groups, algorithm), reference, sources, algorithm, output, uids)
        return finished(report, sources, output)


def _check(measurements: Sequence[RegionMeasurement]) -> None:
    names = [measurement.name for measurement in measurements]
    if not names or len(set(names)) < len(names):
        raise _refusal("measurements", "at least one, each structure once", f"{len(names)}")


def _refusal(argument: str, expected: str, got: str) -> OptionError:
    return OptionError(
        argument,
        expected=expected,
        got=got,
        way_out="Hand over what was measured, or leave the report out.",
    )


def _uids(
    measurements: Sequence[RegionMeasurement],
    reference: SegReference,
    algorithm: Algorithm,
    output: Output,
) -> tuple[str, str]:
    parts = (
        reference.sop_instance_uid,
        algorithm.identity,
        repr(tuple(measurements)),
        output.created.isoformat(),
        f"{output.series_number} {output.series_description}",
        software_version(),
    )
    return uid_of("sr series", *parts), uid_of("sr", *parts)


# ---------------------------------------------------------------- one group


def _group(
    measurement: RegionMeasurement,
    reference: SegReference,
    sources: Sources,
    algorithm: Algorithm,
) -> MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations:
    from highdicom import sr

    name = measurement.name
    uid = reference.tracking_uids.get(name) or tracking_uid(sources, algorithm, name)
    common: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(uid=uid, identifier=name),
        "finding_type": STRUCTURES[name].kind.code(),
        "finding_category": codes.ABNORMAL_STRUCTURE.code(),
        "finding_sites": [sr.FindingSite(anatomic_location=codes.BRAIN.code())],
        "algorithm_id": _algorithm(algorithm),
        "measurements": _numbers(measurement),
    }
    if name not in SEGMENTS:
        return sr.MeasurementsAndQualitativeEvaluations(**common)
    segment = _referenced(STRUCTURES[name], reference, sources)
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=segment, **common
    )


def _algorithm(algorithm: Algorithm) -> AlgorithmIdentification:
    from highdicom.sr import AlgorithmIdentification

    return AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        parameters=algorithm.texts() or None,
        family=algorithm_family(),
        manufacturer=MANUFACTURER,
    )


def _referenced(
    structure: codes.Structure, reference: SegReference, sources: Sources
) -> ReferencedSegment:
    from highdicom.sr import ReferencedSegment, SourceSeriesForSegmentation

    (label,) = structure.labels
    return ReferencedSegment(
        sop_class_uid=reference.sop_class_uid,
        sop_instance_uid=reference.sop_instance_uid,
        segment_number=int(label),
        source_series=SourceSeriesForSegmentation(sources.series_uid),
    )


def _numbers(measurement: RegionMeasurement) -> list[Measurement]:
    from highdicom.sr import Measurement

    return [
        Measurement(
            name=row.name.code(),
            value=round(float(value), row.digits),
            unit=row.unit.code(),
            derivation=row.derivation.code() if row.derivation else None,
        )
        for row in _ROWS
        if (value := getattr(measurement, row.attribute)) is not None
    ]


# ---------------------------------------------------------------- the document


def _report(
    groups: Sequence[
        MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations
    ],
    algorithm: Algorithm,
) -> MeasurementReport:
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes as dicom_codes

    device = DeviceObserverIdentifyingAttributes(
        uid=uid_of("device", algorithm.identity, software_version()),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=algorithm.name,
        serial_number=algorithm.weights_sha256[:16],
    )
    context = ObserverContext(
        observer_type=dicom_codes.DCM.Device, observer_identifying_attributes=device
    )
    return MeasurementReport(
        observation_context=ObservationContext(observer_device_context=context),
        procedure_reported=codes.BRAIN_MRI.code(),
        imaging_measurements=list(groups),
    )


def _document(
    report: MeasurementReport,
    reference: SegReference,
    sources: Sources,
    algorithm: Algorithm,
    output: Output,
    uids: tuple[str, str],
) -> Dataset:
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import Comprehensive3DSR

    own = CodingSchemeIdentificationItem(
        designator=codes.OWN_SCHEME,
        name="Codes of segmamba-service",
        responsible_organization=MANUFACTURER,
    )
    arguments: dict[str, Any] = common_arguments(algorithm, output, uids)
    return Comprehensive3DSR(
        evidence=[*sources.headers, _evidence(reference)],
        content=report,
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[own],
        **arguments,
    )


def _evidence(reference: SegReference) -> Dataset:
    """Name the SEG among the objects that the report rests on."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.StudyInstanceUID = reference.study_uid
    item.SeriesInstanceUID = reference.series_uid
    item.SOPClassUID = reference.sop_class_uid
    item.SOPInstanceUID = reference.sop_instance_uid
    return item
