"""One file's header: what it is, which series it belongs to, and the slices that it holds.

Nothing behind the pixels' mark is read, and nothing about the patient is kept: only the tags listed
here leave the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom import uid as uids
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from model_core.dicom.facts import SeriesFacts
from model_core.dicom.frames import Frame, first_groups, frames_of, lone_frame
from model_core.dicom.limits import DEFAULT_LIMITS, DicomLimits, refuse
from model_core.dicom.parse import Parsed, parse_header
from model_core.dicom.quiet import quiet_pydicom
from model_core.dicom.tags import first_item, is_said, number, text, texts, whole

VOLUME_CLASSES: Final = frozenset(
    map(
        str,
        (
            uids.MRImageStorage,
            uids.EnhancedMRImageStorage,
            uids.LegacyConvertedEnhancedMRImageStorage,
            uids.CTImageStorage,
            uids.EnhancedCTImageStorage,
            uids.LegacyConvertedEnhancedCTImageStorage,
        ),
    )
)
"""SOP classes whose slices can make a volume; whether it is one of MR is judged elsewhere."""
BITS_ALLOCATED: Final = (8, 16)
KEYWORDS: Final = (
    "AcquisitionContrast", "AcquisitionNumber", "AcquisitionTime", "BitsAllocated",
    "BodyPartExamined", "Columns", "ContrastBolusAgent", "ContrastBolusAgentSequence",
    "DiffusionBValue", "DiffusionGradientOrientation", "EchoNumbers", "EchoTime",
    "EchoTrainLength", "EffectiveEchoTime", "FlipAngle", "FrameOfReferenceUID",
    "ImageOrientationPatient", "ImagePositionPatient", "ImageType", "InversionTime",
    "LossyImageCompression", "MRAcquisitionType", "Manufacturer", "Modality",
    "ModalityLUTSequence", "NumberOfFrames", "PerFrameFunctionalGroupsSequence",
    "PhotometricInterpretation", "PixelSpacing", "ProtocolName", "PulseSequenceName",
    "RepetitionTime", "RescaleIntercept", "RescaleSlope", "Rows", "SOPClassUID", "SOPInstanceUID",
    "SamplesPerPixel", "ScanOptions", "ScanningSequence", "SequenceName", "SequenceVariant",
    "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "SharedFunctionalGroupsSequence",
    "StudyInstanceUID", "TemporalPositionIdentifier",
)  # fmt: skip
"""Every tag that is read. None of them is of the patient."""
_TAGS: Final = tuple(tag for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Header:
    """What a file says before its pixels.

    Attributes:
        path: the file.
        transfer_syntax: how it is stored (UID).
        sop_class_uid: what kind of object it is.
        study_uid: StudyInstanceUID (0020,000D).
        series_uid: SeriesInstanceUID (0020,000E).
        frame_of_reference_uid: (0020,0052), empty where it is not said.
        facts: of its series, as far as this file knows them.
        frames: its slices; none for an object without an image, a report for instance; one that
            stands for all in an object that can make no volume, whatever it says about frames.
        problems: why its slices make no volume, for people.
        warnings: what is odd and tolerated, for people.
    """

    path: Path
    transfer_syntax: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    facts: SeriesFacts
    frames: tuple[Frame, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def read_header(path: Path, *, limits: DicomLimits = DEFAULT_LIMITS) -> Header:
    """Read the header of one file.

    Raises:
        ImageError: naming ``dicom``: the file is no DICOM file, holds a program, is damaged, or
            breaks a limit; never anything else, whatever the bytes are.
    """
    parsed = parse_header(path, _TAGS, limits)
    with quiet_pydicom():
        return _header(parsed, path, limits)


def _header(parsed: Parsed, path: Path, limits: DicomLimits) -> Header:
    dataset = parsed.dataset
    frames = _frames(parsed, path, limits)
    return Header(
        path=path,
        transfer_syntax=parsed.transfer_syntax,
        sop_class_uid=text(dataset, "SOPClassUID"),
        study_uid=text(dataset, "StudyInstanceUID"),
        series_uid=text(dataset, "SeriesInstanceUID"),
        frame_of_reference_uid=text(dataset, "FrameOfReferenceUID"),
        facts=facts_of(dataset),
        frames=frames,
        problems=tuple(_problems(parsed, frames, limits)) if frames else (),
        warnings=_warnings(dataset),
    )


def _frames(parsed: Parsed, path: Path, limits: DicomLimits) -> tuple[Frame, ...]:
    dataset = parsed.dataset
    rows, columns = (whole(dataset, keyword) or 0 for keyword in ("Rows", "Columns"))
    size, place = (rows, columns), parsed.pixels_at
    if text(dataset, "SOPClassUID") in VOLUME_CLASSES:
        count = _checked_count(dataset, size, limits)
        return frames_of(dataset, path, count=count, size=size, pixels_at=place)
    if min(size) < 1 or not is_said(dataset, "SeriesInstanceUID"):
        return ()
    return (lone_frame(dataset, path, size=size, pixels_at=place),)


def _checked_count(dataset: Dataset, size: tuple[int, int], limits: DicomLimits) -> int:
    """Give the number of frames of what should be an image of slices, or refuse it."""
    if min(size) < 1:
        raise refuse(
            "an image with rows and columns",
            "one without, or cut off before them",
            "Send the file again, or export it anew.",
        )
    if not text(dataset, "SeriesInstanceUID"):
        raise refuse(
            "images that name their series (0020,000E)",
            "one that does not",
            "Export the study anew; without it nobody knows what belongs together.",
        )
    count = whole(dataset, "NumberOfFrames") if is_said(dataset, "NumberOfFrames") else 1
    if count is None or not 1 <= count <= limits.files or math.prod(size) * count > limits.voxels:
        raise refuse(
            f"at most {limits.files} frames, and {limits.voxels} voxels in them",
            "more, or no number",
            "Check the export, or hand over the series that shows the head.",
        )
    return count


def facts_of(dataset: Dataset) -> SeriesFacts:
    """Read the facts of a series out of one of its files; those of an enhanced file's first frame.

    ``images`` and ``spacing_mm`` are known to the whole series only.
    """
    groups = first_groups(dataset)
    timing, types = (
        groups["MRTimingAndRelatedParametersSequence"],
        groups["MRImageFrameTypeSequence"],
    )
    return SeriesFacts(
        modality=text(dataset, "Modality"),
        description=text(dataset, "SeriesDescription"),
        protocol=text(dataset, "ProtocolName"),
        sequence_name=text(dataset, "SequenceName") or text(dataset, "PulseSequenceName"),
        scanning_sequence=texts(dataset, "ScanningSequence"),
        sequence_variant=texts(dataset, "SequenceVariant"),
        scan_options=texts(dataset, "ScanOptions"),
        image_type=texts(types, "FrameType") or texts(dataset, "ImageType"),
        acquisition_type=text(dataset, "MRAcquisitionType"),
        contrast_agent=_contrast_agent(dataset),
        echo_time_ms=_either(
            number(dataset, "EchoTime"),
            number(dataset, "EffectiveEchoTime"),
            number(groups["MREchoSequence"], "EffectiveEchoTime"),
        ),
        repetition_time_ms=_either(
            number(dataset, "RepetitionTime"), number(timing, "RepetitionTime")
        ),
        inversion_time_ms=_either(
            number(dataset, "InversionTime"),
            number(groups["MRModifierSequence"], "InversionTimes"),
        ),
        flip_angle_deg=_either(number(dataset, "FlipAngle"), number(timing, "FlipAngle")),
        echo_train_length=_echo_train(dataset, timing),
        b_value=_either(
            number(dataset, "DiffusionBValue"),
            number(groups["MRDiffusionSequence"], "DiffusionBValue"),
        ),
        acquisition_contrast=text(types, "AcquisitionContrast")
        or text(dataset, "AcquisitionContrast"),
        manufacturer=text(dataset, "Manufacturer"),
        body_part=text(dataset, "BodyPartExamined"),
        number=whole(dataset, "SeriesNumber"),
        acquired=_seconds(text(dataset, "AcquisitionTime")),
    )


def _contrast_agent(dataset: Dataset) -> str | None:
    if "ContrastBolusAgent" in dataset:
        return text(dataset, "ContrastBolusAgent")
    agent = first_item(dataset, "ContrastBolusAgentSequence")
    return text(agent, "CodeMeaning") if agent is not None else None


def _echo_train(dataset: Dataset, timing: Dataset | None) -> int | None:
    for source, keyword in (
        (dataset, "EchoTrainLength"),
        (timing, "EchoTrainLength"),
        (timing, "RFEchoTrainLength"),
    ):
        found = whole(source, keyword)
        if found is not None:
            return found
    return None


def _either(*candidates: float | None) -> float | None:
    return next((candidate for candidate in candidates if candidate is not None), None)


def _seconds(time: str) -> float | None:
    """Seconds of the day of a DICOM time, ``HHMMSS.FFFFFF`` with all but the hour optional."""
    try:
        hours, minutes = int(time[:2]), int(time[2:4] or 0)
        return hours * 3600 + minutes * 60 + float(time[4:] or 0)
    except ValueError:
        return None


def _problems(parsed: Parsed, frames: tuple[Frame, ...], limits: DicomLimits) -> list[str]:
    dataset, (rows, columns) = parsed.dataset, frames[0].size
    if text(dataset, "SOPClassUID") not in VOLUME_CLASSES:
        return ["not a kind of image that can make a volume"]
    checks = {
        "colour images": (whole(dataset, "SamplesPerPixel") or 1) != 1
        or text(dataset, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"),
        "images whose dark and bright are exchanged (MONOCHROME1)": (
            text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
        ),
        "a mosaic: many slices in one picture; export it as single slices or enhanced DICOM": (
            "MOSAIC" in texts(dataset, "ImageType")
        ),
        f"numbers that are not of {' or '.join(map(str, BITS_ALLOCATED))} bits": (
            whole(dataset, "BitsAllocated") not in BITS_ALLOCATED
        ),
        "values behind a lookup table (0028,3000), which is not applied": (
            is_said(dataset, "ModalityLUTSequence")
        ),
        f"more than {limits.longest_axis} rows or columns": (
            max(rows, columns) > limits.longest_axis
        ),
        "a file that was cut off, or holds no pixels": (
            parsed.pixel_bytes < _least_pixel_bytes(parsed, frames)
        ),
    }
    return [words for words, found in checks.items() if found]


def _least_pixel_bytes(parsed: Parsed, frames: tuple[Frame, ...]) -> int:
    """What an uncompressed file must have after its header; a compressed one has something."""
    if uids.UID(parsed.transfer_syntax).is_encapsulated:
        return 1
    rows, columns = frames[0].size
    return rows * columns * len(frames) * ((whole(parsed.dataset, "BitsAllocated") or 0) // 8)


def _warnings(dataset: Dataset) -> tuple[str, ...]:
    if text(dataset, "LossyImageCompression") == "01":
        return ("the images were compressed with loss at some time",)
    return ()
