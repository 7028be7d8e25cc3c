"""The series that a derived object speaks of: its place, its references, its patient.

A SEG or SR belongs to the patient and study of its source, and refers to every source instance.
Three things are kept apart here: the lattice (`Sources.grid`), small headers for the writer that
carry no patient (`Sources.headers`), and the patient's and study's own tags (`Sources.identity`),
which are put into the finished object as they are, and which no code that checks, logs or warns
ever sees.

Frames: headers say LPS+ mm (PS3.3, C.7.6.2.1.1); `Sources.grid` is RAS+ mm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from model_core.dicom.frames import Frame
from model_core.dicom.limits import ARGUMENT, DEFAULT_LIMITS, DicomLimits
from model_core.dicom.parse import parse_header
from model_core.dicom.quiet import quiet_pydicom
from model_core.dicom.series import Series
from model_core.dicom.tags import first_item, is_said, number, value_of
from model_core.errors import ImageError
from model_core.imaging.grid import Grid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

ENHANCED_CLASSES: Final = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
"""Enhanced MR Image Storage, Legacy Converted Enhanced MR Image Storage."""
MR_CLASSES: Final = ("1.2.840.10008.5.1.4.1.1.4", *ENHANCED_CLASSES)

IDENTITY: Final = (
    # Patient (PS3.3, C.7.1.1)
    "PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthDate", "PatientBirthTime", "PatientSex", "OtherPatientIDsSequence",
    "OtherPatientNames", "EthnicGroup", "PatientComments", "PatientIdentityRemoved",
    "DeidentificationMethod", "DeidentificationMethodCodeSequence", "QualityControlSubject",
    # Clinical trial subject and study (C.7.1.3, C.7.2.3)
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
    # General study (C.7.2.1)
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
    "IssuerOfAccessionNumberSequence", "StudyDescription",
    # Patient study (C.7.2.2)
    "PatientAge", "PatientSize", "PatientWeight",
    # how the texts above are spelled (C.12.1)
    "SpecificCharacterSet",
)  # fmt: skip
"""Tags that an object of the same patient and study repeats."""
_TYPE_2: Final = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
"""Tags that a derived object must have, empty where the source has none."""
_EQUIPMENT: Final = (
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions",
    "PositionReferenceIndicator",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
_ALSO_READ: Final = (
    "SOPClassUID",  # by which the reader knows that it did not run into the end of the file
    "SliceThickness", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sources:
    """One source series; made by `sources_of`.

    Attributes:
        headers: one small header a slice, in the order of the grid's slices, or one for a whole
            enhanced instance: references, geometry, equipment, and nothing where the patient is.
        identity: the tags of patient and study, as the source has them.
        grid: columns × rows × slices, index → RAS+ mm.
        frame_numbers: for an enhanced instance, the number of the frame (from 1) behind each slice.
    """

    headers: tuple[Dataset, ...]
    identity: Dataset
    grid: Grid
    frame_numbers: tuple[int, ...] = ()

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID (0020,000E) of the source."""
        return str(self.headers[0].SeriesInstanceUID)

    @property
    def study_uid(self) -> str:
        """StudyInstanceUID (0020,000D) of the source."""
        return str(self.headers[0].StudyInstanceUID)


def sources_of(
    series: Series, *, argument: str = ARGUMENT, limits: DicomLimits = DEFAULT_LIMITS
) -> Sources:
    """Make a series ready to be referred to. One of its files is read, up to the pixels.

    Args:
        series: one of `list_series`, without problems.
        argument: what the caller calls this image, e.g. ``"t1ce"``; used in errors.
        limits: what is still accepted of the file.

    Raises:
        ImageError: the series has problems, shows no MR, has no frame of reference, or is spread
            over several enhanced instances.
    """
    grid = _checked_grid(series, argument)
    first = parse_header(series.frames[0].path, _tags(), limits).dataset
    with quiet_pydicom():
        if series.sop_class_uid in ENHANCED_CLASSES:
            headers = [_enhanced_header(series, grid, first)]
            numbers = tuple(frame.index + 1 for frame in series.frames)
        else:
            headers = [_slice_header(series, frame, grid, first) for frame in series.frames]
            numbers = ()
        _copy(first, headers[0], _EQUIPMENT)
        return Sources(tuple(headers), _identity(first), grid, numbers)


def _checked_grid(series: Series, argument: str) -> Grid:
    grid = series.grid
    if grid is None or series.problems:
        expected, got = "a series whose slices make one volume", "; ".join(series.problems)
    elif series.sop_class_uid not in MR_CLASSES:
        expected, got = "MR images", "another kind of object"
    elif not series.frame_of_reference_uid:
        expected, got = "a frame of reference (0020,0052)", "none"
    elif series.sop_class_uid in ENHANCED_CLASSES and len(series.files) > 1:
        expected, got = "one enhanced instance", f"{len(series.files)} of them"
    else:
        return grid
    raise ImageError(
        argument,
        expected=expected,
        got=got or "none",
        way_out="Choose another reference series, or leave the DICOM output out.",
    )


def _tags() -> list[int]:
    from pydicom.datadict import tag_for_keyword

    found = (tag_for_keyword(keyword) for keyword in (*IDENTITY, *_EQUIPMENT, *_ALSO_READ))
    return [tag for tag in found if tag is not None]


def _identity(first: Dataset) -> Dataset:
    from pydicom.dataset import Dataset

    identity = Dataset()
    for keyword in _TYPE_2:
        setattr(identity, keyword, None)
    _copy(first, identity, IDENTITY)
    return identity


def _copy(source: Dataset, target: Dataset, keywords: Sequence[str]) -> None:
    for keyword in keywords:
        if is_said(source, keyword) and value_of(source, keyword) is not None:
            target[keyword] = source[keyword]


# ---------------------------------------------------------------- small headers


def _slice_header(series: Series, frame: Frame, grid: Grid, first: Dataset) -> Dataset:
    header = _reference(series, frame)
    header.ImagePositionPatient = _decimals(frame.position or ())
    _add_plane(header, header, series.frames[0], grid, number(first, "SliceThickness"))
    return header


def _enhanced_header(series: Series, grid: Grid, first: Dataset) -> Dataset:
    """Say the frames of this volume alone, in the order of its slices."""
    from pydicom.dataset import Dataset

    header = _reference(series, series.frames[0])
    header.NumberOfFrames = len(series.frames)
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    _add_plane(orientation, measures, series.frames[0], grid, _frame_thickness(first))
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = [_position_group(f) for f in series.frames]
    return header


def _reference(series: Series, frame: Frame) -> Dataset:
    from pydicom.dataset import Dataset

    header = Dataset()
    header.SOPClassUID = series.sop_class_uid
    header.SOPInstanceUID = frame.instance_uid
    header.StudyInstanceUID = series.study_uid
    header.SeriesInstanceUID = series.series_uid
    header.FrameOfReferenceUID = series.frame_of_reference_uid
    header.Modality = "MR"
    header.Rows, header.Columns = frame.size
    for keyword in _TYPE_2:
        setattr(header, keyword, None)
    return header


def _add_plane(
    orientation: Dataset, measures: Dataset, frame: Frame, grid: Grid, thickness: float | None
) -> None:
    """Say orientation and measures in the same words for every slice, with the true distance.

    SpacingBetweenSlices (0018,0088) is what positions say: some headers have the gap in it.
    """
    distance = round(grid.spacing_mm[2], 6)  # below a nanometre is rounding
    orientation.ImageOrientationPatient = _decimals(frame.orientation or ())
    measures.PixelSpacing = _decimals(frame.spacing or ())
    (measures.SpacingBetweenSlices,) = _decimals([distance])
    (measures.SliceThickness,) = _decimals([thickness if thickness and thickness > 0 else distance])


def _frame_thickness(first: Dataset) -> float | None:
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        measures = first_item(first_item(first, keyword), "PixelMeasuresSequence")
        if measures is not None:
            return number(measures, "SliceThickness")
    return None


def _position_group(frame: Frame) -> Dataset:
    from pydicom.dataset import Dataset

    group, position = Dataset(), Dataset()
    position.ImagePositionPatient = _decimals(frame.position or ())
    group.PlanePositionSequence = [position]
    return group


def _decimals(numbers: Iterable[float]) -> list[Any]:
    """Numbers as decimal strings of at most 16 characters (PS3.5, VR DS)."""
    from pydicom.valuerep import DSfloat

    return [DSfloat(float(one), auto_format=True) for one in numbers]
