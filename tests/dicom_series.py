"""DICOM MR series made in code, one slice a file or one enhanced file, from an array and its place.

The array is (X, Y, Z) with an affine to RAS+ mm, as a `Volume` has it: index 0 runs along a row of
the image (DICOM's columns), index 1 down the rows, index 2 from slice to slice. So the affine alone
decides how the series was acquired; `geometry_affine` makes those of scanners. The same arguments
give the same bytes, UIDs included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from pydicom.valuerep import DSfloat

from model_core.dicom.facts import SeriesFacts
from model_core.types import Shape3, Spacing

GEOMETRIES: Mapping[str, tuple[Sequence[float], Sequence[float]]] = MappingProxyType(
    {
        "axial": ((1, 0, 0), (0, 1, 0)),
        "axial-negated-row": ((-1, 0, 0), (0, 1, 0)),
        "axial-negated-column": ((1, 0, 0), (0, -1, 0)),
        "coronal": ((1, 0, 0), (0, 0, -1)),
        "sagittal": ((0, 1, 0), (0, 0, -1)),
        "sagittal-negated-row": ((0, -1, 0), (0, 0, -1)),
    }
)
"""Direction along a row and down a column in LPS+, as ImageOrientationPatient says them."""
TILT_DEG = (14.0, -9.0, 6.0)
"""Turns about x, y and z that make any of the geometries oblique."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])

T1_FACTS = SeriesFacts(
    modality="MR",
    description="t1 native",
    protocol="t1",
    sequence_name="*tfl3d1",
    scanning_sequence=("GR", "IR"),
    sequence_variant=("SK", "SP", "MP"),
    image_type=("ORIGINAL", "PRIMARY", "M", "ND"),
    acquisition_type="3D",
    echo_time_ms=2.98,
    repetition_time_ms=2300.0,
    inversion_time_ms=900.0,
    flip_angle_deg=9.0,
    echo_train_length=1,
    manufacturer="SYNTHETIC",
    body_part="BRAIN",
    number=2,
    acquired=36_000.0,
)
"""A native T1 of a usual 3-D gradient echo; `dataclasses.replace` makes others of it."""

PLANTED: Mapping[str, str] = MappingProxyType(
    {
        "PatientName": "Zyxplanted^Quorlina",
        "PatientID": "PLANTED-4711-ID",
        "PatientBirthDate": "19330227",
        "PatientSex": "F",
        "PatientAge": "093Y",
        "PatientAddress": "Plantedstrasse 17, Nowhereville",
        "OtherPatientIDs": "PLANTED-OTHER-99",
        "PatientComments": "planted comment of Zyxplanted",
        "ReferringPhysicianName": "Plantedref^Doctor",
        "PerformingPhysicianName": "Plantedperf^Doctor",
        "OperatorsName": "Plantedop^Nurse",
        "InstitutionName": "Planted General Hospital",
        "InstitutionAddress": "Plantedroad 1",
        "StationName": "PLANTEDSTATION",
        "AccessionNumber": "PLANTEDACC01",
        "StudyID": "PLANTEDSTUDY",
    }
)
"""A patient module full of words that occur nowhere else, so that a leak of any is found."""


@dataclass(frozen=True, kw_only=True)
class SeriesRecipe:
    """Everything about a series but its voxels and their place.

    Attributes:
        facts: written into the tags they come from; ``images`` and ``spacing_mm`` are not used.
        study: seed of the study's UIDs and of its frame of reference.
        seed: seed of the series' UID; another seed is another series.
        part: seed of the instances' UIDs, for several volumes in one series.
        shuffled: instance numbers and file names follow no order of place.
        scaling: RescaleSlope and RescaleIntercept; the voxels are stored so that reading gives them
            back, rounded to the slope.
        patient: tags of the patient, the study and the place by keyword, e.g. `PLANTED`.
        extra: further tags by keyword, set last on every slice (a None takes the tag out).
        left_out: slices that are not written.
        thickness_mm: SliceThickness; None is the distance of the slices, so no gap.
    """

    facts: SeriesFacts = T1_FACTS
    study: str = "study"
    seed: str = "series"
    part: str = ""
    shuffled: bool = True
    scaling: tuple[float, float] | None = None
    patient: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[int, ...] = ()
    thickness_mm: float | None = None


PLAIN = SeriesRecipe()


def geometry_affine(
    name: str = "axial",
    *,
    shape: Shape3,
    spacing: Spacing = (1.0, 1.0, 1.0),
    oblique: bool = False,
    centre: Spacing = (3.0, -11.0, 7.5),
) -> NDArray[np.float64]:
    """The affine, voxel index → RAS+ mm, of one of the `GEOMETRIES`; slices along the normal.

    Args:
        name: of the geometry.
        shape: voxels along a row, down a column, and slices.
        spacing: mm between neighbours in the same order.
        oblique: turned by `TILT_DEG` about the centre.
        centre: where the middle of the volume lies, in RAS+ mm.
    """
    row, column = (np.array(direction, dtype=np.float64) for direction in GEOMETRIES[name])
    axes = np.stack([row, column, np.cross(row, column)], axis=1)
    turned = LPS_TO_RAS @ (_tilt() if oblique else np.eye(3)) @ axes
    affine = np.eye(4)
    affine[:3, :3] = turned * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def uid_of(*seeds: str) -> str:
    """A UID that depends on the words alone."""
    return str(generate_uid(entropy_srcs=["segmamba tests", *seeds]))


def series_uid(recipe: SeriesRecipe = PLAIN) -> str:
    """The SeriesInstanceUID that a recipe gives."""
    return uid_of("series", recipe.study, recipe.seed)


def study_uid(recipe: SeriesRecipe = PLAIN) -> str:
    """The StudyInstanceUID that a recipe gives."""
    return uid_of("study", recipe.study)


def write_series(
    folder: Path,
    array: NDArray[Any],
    affine: NDArray[np.float64],
    recipe: SeriesRecipe = PLAIN,
) -> tuple[Path, ...]:
    """Write one file a slice into a folder; the paths are in the order of the array's slices."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, dataset in enumerate(slices_of(array, affine, recipe)):
        name = recipe.seed + recipe.part + f"-{dataset.InstanceNumber:04d}.dcm"
        path = folder / (
            name if recipe.shuffled else f"{recipe.seed}{recipe.part}-{number:04d}.dcm"
        )
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return tuple(paths)


def slices_of(
    array: NDArray[Any], affine: NDArray[np.float64], recipe: SeriesRecipe = PLAIN
) -> list[Dataset]:
    """Make the data sets of `write_series`, in the order of the array's slices."""
    stored = stored_values(array, recipe.scaling)
    numbers = _instance_numbers(array.shape[2], recipe.shuffled)
    lps = LPS_TO_RAS @ affine[:3]
    datasets = []
    for index in range(array.shape[2]):
        if index in recipe.left_out:
            continue
        dataset = _common(stored[:, :, index : index + 1], recipe, MRImageStorage, str(index))
        dataset.InstanceNumber = numbers[index]
        _add_plane(dataset, lps, index, recipe)
        _add_plain_facts(dataset, recipe.facts)
        _add_extra(dataset, recipe.extra)
        datasets.append(dataset)
    return datasets


def write_enhanced(
    path: Path,
    array: NDArray[Any],
    affine: NDArray[np.float64],
    recipe: SeriesRecipe = PLAIN,
) -> Path:
    """Write the whole volume as one Enhanced MR Image; frames are shuffled like slices."""
    enhanced_of(array, affine, recipe).save_as(path, enforce_file_format=True)
    return path


def enhanced_of(
    array: NDArray[Any], affine: NDArray[np.float64], recipe: SeriesRecipe = PLAIN
) -> Dataset:
    """Make the data set of `write_enhanced`."""
    kept = [index for index in range(array.shape[2]) if index not in recipe.left_out]
    numbers = _instance_numbers(array.shape[2], recipe.shuffled)
    order = sorted(kept, key=lambda index: numbers[index])
    stored = stored_values(array, recipe.scaling)[:, :, order]
    dataset = _common(stored, recipe, EnhancedMRImageStorage, "enhanced")
    dataset.InstanceNumber = 1
    dataset.NumberOfFrames = len(order)
    lps = LPS_TO_RAS @ affine[:3]
    _add_dimensions(dataset)
    dataset.SharedFunctionalGroupsSequence = Items([_shared_groups(lps, recipe)])
    dataset.PerFrameFunctionalGroupsSequence = Items(
        [_frame_groups(lps, index, kept.index(index) + 1) for index in order]
    )
    _add_enhanced_facts(dataset, recipe.facts)
    _add_extra(dataset, recipe.extra)
    return dataset


def stored_values(
    array: NDArray[Any], scaling: tuple[float, float] | None
) -> NDArray[np.int16] | NDArray[np.uint16]:
    """The whole numbers that a file holds: signed only where a voxel is below zero."""
    slope, intercept = scaling or (1.0, 0.0)
    values = np.rint((np.asarray(array, dtype=np.float64) - intercept) / slope)
    if values.min() < 0:
        assert values.min() >= -(2**15)
        assert values.max() < 2**15
        return values.astype(np.int16)
    assert values.max() < 2**16
    return values.astype(np.uint16)


def decimal(number: float) -> DSfloat:
    """A number as a decimal string of at most 16 characters."""
    return DSfloat(float(number), auto_format=True)


def _tilt() -> NDArray[np.float64]:
    matrix = np.eye(3)
    for axis, degrees in enumerate(TILT_DEG):
        first, second = (other for other in range(3) if other != axis)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(np.radians(degrees))
        turn[second, first] = np.sin(np.radians(degrees))
        turn[first, second] = -turn[second, first]
        matrix = turn @ matrix
    return matrix


def _instance_numbers(count: int, shuffled: bool) -> list[int]:
    numbers = np.arange(1, count + 1)
    return [
        int(n) for n in (np.random.default_rng(7).permutation(numbers) if shuffled else numbers)
    ]


def _common(stored: NDArray[Any], recipe: SeriesRecipe, sop_class: str, instance: str) -> Dataset:
    """What single-frame and enhanced objects share; ``stored`` is (columns, rows, frames)."""
    facts = recipe.facts
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = uid_of("instance", recipe.study, recipe.seed, recipe.part, instance)
    dataset.file_meta = _file_meta(dataset)
    _add_patient_and_study(dataset, recipe)
    dataset.Modality = facts.modality
    dataset.SeriesInstanceUID = series_uid(recipe)
    dataset.SeriesNumber = facts.number
    dataset.FrameOfReferenceUID = uid_of("frame", recipe.study)
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = "HFS"
    dataset.Manufacturer = facts.manufacturer
    dataset.ManufacturerModelName = "Synthesiser"
    dataset.DeviceSerialNumber = "1"
    dataset.SoftwareVersions = "1"
    dataset.ImageType = list(facts.image_type)
    _set_if(dataset, "SeriesDescription", facts.description)
    _set_if(dataset, "ProtocolName", facts.protocol)
    _set_if(dataset, "BodyPartExamined", facts.body_part)
    if facts.acquired is not None:
        dataset.AcquisitionDate = "20260102"
        dataset.AcquisitionTime = _time(facts.acquired)
    _add_pixels(dataset, stored)
    return dataset


def _file_meta(dataset: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _add_patient_and_study(dataset: Dataset, recipe: SeriesRecipe) -> None:
    dataset.PatientName = "Phantom^Head"
    dataset.PatientID = "PHANTOM"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.StudyInstanceUID = study_uid(recipe)
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = "20260102"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = "100000"
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = "1"
    dataset.AccessionNumber = ""
    for keyword, value in recipe.patient.items():
        setattr(dataset, keyword, value)


def _add_pixels(dataset: Dataset, stored: NDArray[Any]) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Columns, dataset.Rows = stored.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = (
        np.ascontiguousarray(stored.T).astype(stored.dtype.newbyteorder("<")).tobytes()
    )


def _add_plane(
    dataset: Dataset, lps: NDArray[np.float64], index: int, recipe: SeriesRecipe
) -> None:
    row, column, step = (lps[:, axis] for axis in range(3))
    dataset.ImageOrientationPatient = _orientation(lps)
    dataset.ImagePositionPatient = [decimal(mm) for mm in lps[:, 3] + index * step]
    dataset.PixelSpacing = [decimal(np.linalg.norm(column)), decimal(np.linalg.norm(row))]
    distance = float(np.linalg.norm(step))
    dataset.SpacingBetweenSlices = decimal(distance)
    dataset.SliceThickness = decimal(recipe.thickness_mm or distance)
    if recipe.scaling:
        dataset.RescaleSlope, dataset.RescaleIntercept = (decimal(n) for n in recipe.scaling)
        dataset.RescaleType = "US"


def _orientation(lps: NDArray[np.float64]) -> list[DSfloat]:
    cosines = lps[:, :2] / np.linalg.norm(lps[:, :2], axis=0)
    return [decimal(cosine) for cosine in (*cosines[:, 0], *cosines[:, 1])]


def _add_plain_facts(dataset: Dataset, facts: SeriesFacts) -> None:
    dataset.ScanningSequence = list(facts.scanning_sequence)
    dataset.SequenceVariant = list(facts.sequence_variant)
    dataset.ScanOptions = list(facts.scan_options)
    dataset.MRAcquisitionType = facts.acquisition_type
    _set_if(dataset, "SequenceName", facts.sequence_name)
    dataset.EchoTime = _decimal_or_empty(facts.echo_time_ms)
    dataset.EchoTrainLength = facts.echo_train_length
    for keyword, number in (
        ("RepetitionTime", facts.repetition_time_ms),
        ("InversionTime", facts.inversion_time_ms),
        ("FlipAngle", facts.flip_angle_deg),
    ):
        if number is not None:
            setattr(dataset, keyword, decimal(number))
    if facts.b_value is not None:
        dataset.DiffusionBValue = float(facts.b_value)
    if facts.contrast_agent is not None:
        dataset.ContrastBolusAgent = facts.contrast_agent


def _add_dimensions(dataset: Dataset) -> None:
    uid = uid_of("dimensions")
    dataset.DimensionOrganizationSequence = Items([_item(DimensionOrganizationUID=uid)])
    dataset.DimensionIndexSequence = Items(
        [
            _item(
                DimensionOrganizationUID=uid,
                DimensionIndexPointer=pointer,
                FunctionalGroupPointer=0x00209111,
            )
            for pointer in (0x00209056, 0x00209057)  # stack, position in the stack
        ]
    )


def _shared_groups(lps: NDArray[np.float64], recipe: SeriesRecipe) -> Dataset:
    row, column, step = (lps[:, axis] for axis in range(3))
    distance = float(np.linalg.norm(step))
    slope, intercept = recipe.scaling or (1.0, 0.0)
    return _item(
        PixelMeasuresSequence=_one(
            PixelSpacing=[decimal(np.linalg.norm(column)), decimal(np.linalg.norm(row))],
            SpacingBetweenSlices=decimal(distance),
            SliceThickness=decimal(recipe.thickness_mm or distance),
        ),
        PlaneOrientationSequence=_one(ImageOrientationPatient=_orientation(lps)),
        PixelValueTransformationSequence=_one(
            RescaleIntercept=decimal(intercept), RescaleSlope=decimal(slope), RescaleType="US"
        ),
        **_timing_groups(recipe.facts),
    )


def _timing_groups(facts: SeriesFacts) -> dict[str, Items]:
    groups = {
        "MRTimingAndRelatedParametersSequence": _one(
            RepetitionTime=_decimal_or_empty(facts.repetition_time_ms),
            FlipAngle=_decimal_or_empty(facts.flip_angle_deg),
            EchoTrainLength=facts.echo_train_length,
        ),
        "MRImageFrameTypeSequence": _one(
            FrameType=list(facts.image_type),
            AcquisitionContrast=facts.acquisition_contrast or "UNKNOWN",
            PixelPresentation="MONOCHROME",
            VolumetricProperties="VOLUME",
            VolumeBasedCalculationTechnique="NONE",
            ComplexImageComponent="MAGNITUDE",
        ),
        "FrameAnatomySequence": _one(
            FrameLaterality="U",
            AnatomicRegionSequence=_one(
                CodeValue="12738006", CodingSchemeDesignator="SCT", CodeMeaning="Brain"
            ),
        ),
    }
    if facts.echo_time_ms is not None:
        groups["MREchoSequence"] = _one(EffectiveEchoTime=float(facts.echo_time_ms))
    if facts.inversion_time_ms is not None:
        groups["MRModifierSequence"] = _one(
            InversionRecovery="YES", InversionTimes=float(facts.inversion_time_ms)
        )
    if facts.b_value is not None:
        groups["MRDiffusionSequence"] = _one(
            DiffusionBValue=float(facts.b_value), DiffusionDirectionality="ISOTROPIC"
        )
    return groups


def _frame_groups(lps: NDArray[np.float64], index: int, place: int) -> Dataset:
    position = [decimal(mm) for mm in lps[:, 3] + index * lps[:, 2]]
    return _item(
        PlanePositionSequence=_one(ImagePositionPatient=position),
        FrameContentSequence=_one(
            StackID="1",
            InStackPositionNumber=place,
            DimensionIndexValues=[1, place],
            FrameAcquisitionNumber=1,
        ),
    )


def _add_enhanced_facts(dataset: Dataset, facts: SeriesFacts) -> None:
    dataset.MRAcquisitionType = facts.acquisition_type
    dataset.AcquisitionContrast = facts.acquisition_contrast or "UNKNOWN"
    dataset.VolumetricProperties = "VOLUME"
    dataset.VolumeBasedCalculationTechnique = "NONE"
    dataset.PixelPresentation = "MONOCHROME"
    dataset.ComplexImageComponent = "MAGNITUDE"
    _set_if(dataset, "PulseSequenceName", facts.sequence_name)
    if facts.contrast_agent is not None:
        dataset.ContrastBolusAgentSequence = _one(
            CodeValue="C-B0322",
            CodingSchemeDesignator="SRT",
            CodeMeaning=facts.contrast_agent,
        )


def _add_extra(dataset: Dataset, extra: Mapping[str, Any]) -> None:
    for keyword, value in extra.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)


def _item(**tags: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def _one(**tags: Any) -> Items:
    return Items([_item(**tags)])


def _set_if(dataset: Dataset, keyword: str, value: str) -> None:
    if value:
        setattr(dataset, keyword, value)


def _decimal_or_empty(number: float | None) -> DSfloat | None:
    return None if number is None else decimal(number)


def _time(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:02d}{minutes:02d}{rest:09.6f}"


def with_facts(recipe: SeriesRecipe, **facts: Any) -> SeriesRecipe:
    """The recipe with some facts changed."""
    return replace(recipe, facts=replace(recipe.facts, **facts))
