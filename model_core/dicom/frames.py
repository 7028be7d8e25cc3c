"""The slices that a file holds: where each lies, how its numbers are scaled, how it was made.

A file of one slice says this in its own tags (PS3.3 C.7.6.2, C.11.1), an enhanced file once for
every frame in functional groups, or once for all of them (PS3.3 C.7.6.16). Frame: LPS+ mm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from pydicom.dataset import Dataset

from model_core.dicom.limits import refuse
from model_core.dicom.tags import first_item, is_said, items, number, numbers, text, texts, whole

Vector = tuple[float, ...]

_FARTHEST_MM: Final = 1e5
"""No scanner puts a voxel farther from its centre; what does is damage."""
_SPACING_MM: Final = (1e-3, 1e3)


class Traits(NamedTuple):
    """What tells the volumes of one series apart; None or empty where it is not said.

    The order is that in which a series is split: what makes another kind of image first, what only
    repeats one last.
    """

    image_type: tuple[str, ...] = ()
    echo_time_ms: float | None = None
    echo_number: int | None = None
    b_value: float | None = None
    diffusion_direction: Vector | None = None
    inversion_time_ms: float | None = None
    flip_angle_deg: float | None = None
    stack: str = ""
    temporal_position: int | None = None
    acquisition: int | None = None


TRAIT_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "image_type": "image type",
        "echo_time_ms": "echo time",
        "echo_number": "echo number",
        "b_value": "b-value",
        "diffusion_direction": "diffusion direction",
        "inversion_time_ms": "inversion time",
        "flip_angle_deg": "flip angle",
        "stack": "stack",
        "temporal_position": "point in time",
        "acquisition": "acquisition number",
    }
)
"""Every trait in words."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice of a file.

    Attributes:
        path: the file.
        index: number of the frame in its file, from 0.
        instance_uid: SOPInstanceUID (0008,0018) of the file.
        pixels_at: bytes of the file before its pixels.
        size: (rows, columns).
        position: centre of the first voxel, LPS+ mm (0020,0032); None where it is not told.
        orientation: direction along a row, then down a column, LPS+ unit vectors (0020,0037).
        spacing: mm between rows, then between columns (0028,0030).
        scaling: slope and intercept (0028,1053), (0028,1052); None where they cannot be read.
        traits: how it was made.
    """

    path: Path
    index: int
    instance_uid: str
    pixels_at: int
    size: tuple[int, int]
    position: Vector | None
    orientation: Vector | None
    spacing: Vector | None
    scaling: tuple[float, float] | None
    traits: Traits


class _Place(NamedTuple):
    """Where a frame is stored: the first five attributes of `Frame`."""

    path: Path
    number: int
    instance_uid: str
    pixels_at: int
    size: tuple[int, int]


def frames_of(
    dataset: Dataset, path: Path, *, count: int, size: tuple[int, int], pixels_at: int
) -> tuple[Frame, ...]:
    """Give the frames of one file.

    Args:
        dataset: its tags.
        path: the file.
        count: how many frames it holds.
        size: rows and columns.
        pixels_at: bytes of the file before its pixels.

    Raises:
        ImageError: functional groups for another number of frames.
    """
    uid = text(dataset, "SOPInstanceUID")
    places = [_Place(path, index, uid, pixels_at, size) for index in range(count)]
    if not is_said(dataset, "PerFrameFunctionalGroupsSequence"):
        first = _plain_frame(dataset, places[0])
        return tuple(replace(first, index=index) for index in range(count))
    groups = items(dataset, "PerFrameFunctionalGroupsSequence")
    if len(groups) != count:
        raise refuse(
            "functional groups for every frame",
            f"{len(groups)} for {count} frames",
            "Send the file again, or export the series as single slices.",
        )
    shared = first_item(dataset, "SharedFunctionalGroupsSequence")
    return tuple(
        _grouped_frame(Groups(own, shared), place)
        for own, place in zip(groups, places, strict=True)
    )


def lone_frame(dataset: Dataset, path: Path, *, size: tuple[int, int], pixels_at: int) -> Frame:
    """Give one frame that stands for a whole file, whatever else it holds."""
    uid = text(dataset, "SOPInstanceUID")
    return _plain_frame(dataset, _Place(path, 0, uid, pixels_at, size))


@dataclass(frozen=True)
class Groups:
    """The functional groups of one frame: its own come before those of all frames."""

    own: Dataset
    shared: Dataset | None

    def __getitem__(self, keyword: str) -> Dataset | None:
        """Give the item of one functional group, None where neither has it."""
        own = first_item(self.own, keyword)
        return own if own is not None else first_item(self.shared, keyword)


def first_groups(dataset: Dataset) -> Groups:
    """Give the groups of the first frame, empty ones for a file of a single slice."""
    own = first_item(dataset, "PerFrameFunctionalGroupsSequence")
    return Groups(
        own if own is not None else Dataset(),
        first_item(dataset, "SharedFunctionalGroupsSequence"),
    )


def _plain_frame(dataset: Dataset, place: _Place) -> Frame:
    return Frame(
        *place,
        position=_near(numbers(dataset, "ImagePositionPatient", 3)),
        orientation=numbers(dataset, "ImageOrientationPatient", 6),
        spacing=_sensible(numbers(dataset, "PixelSpacing", 2)),
        scaling=_scaling(dataset),
        traits=Traits(
            image_type=texts(dataset, "ImageType"),
            echo_time_ms=number(dataset, "EchoTime"),
            echo_number=whole(dataset, "EchoNumbers"),
            b_value=number(dataset, "DiffusionBValue"),
            diffusion_direction=numbers(dataset, "DiffusionGradientOrientation", 3),
            inversion_time_ms=number(dataset, "InversionTime"),
            flip_angle_deg=number(dataset, "FlipAngle"),
            temporal_position=whole(dataset, "TemporalPositionIdentifier"),
            acquisition=whole(dataset, "AcquisitionNumber"),
        ),
    )


def _grouped_frame(groups: Groups, place: _Place) -> Frame:
    content, diffusion = groups["FrameContentSequence"], groups["MRDiffusionSequence"]
    measures = groups["PixelMeasuresSequence"]
    return Frame(
        *place,
        position=_near(numbers(groups["PlanePositionSequence"], "ImagePositionPatient", 3)),
        orientation=numbers(groups["PlaneOrientationSequence"], "ImageOrientationPatient", 6),
        spacing=_sensible(numbers(measures, "PixelSpacing", 2)),
        scaling=_scaling(groups["PixelValueTransformationSequence"]),
        traits=Traits(
            image_type=texts(groups["MRImageFrameTypeSequence"], "FrameType"),
            echo_time_ms=number(groups["MREchoSequence"], "EffectiveEchoTime"),
            b_value=number(diffusion, "DiffusionBValue"),
            diffusion_direction=numbers(
                first_item(diffusion, "DiffusionGradientDirectionSequence"),
                "DiffusionGradientOrientation",
                3,
            ),
            inversion_time_ms=number(groups["MRModifierSequence"], "InversionTimes"),
            flip_angle_deg=number(groups["MRTimingAndRelatedParametersSequence"], "FlipAngle"),
            stack=text(content, "StackID"),
            temporal_position=whole(content, "TemporalPositionIndex"),
            acquisition=whole(content, "FrameAcquisitionNumber"),
        ),
    )


def _scaling(dataset: Dataset | None) -> tuple[float, float] | None:
    """Slope and intercept: (1, 0) where none is said, None where what is said is no scale."""
    found = list(_scale_parts(dataset))
    slope, intercept = found
    if slope is None or intercept is None or slope == 0:
        return None
    return slope, intercept


def _scale_parts(dataset: Dataset | None) -> Iterator[float | None]:
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        yield number(dataset, keyword) if is_said(dataset, keyword) else default


def _near(position: Vector | None) -> Vector | None:
    return position if position and max(map(abs, position)) <= _FARTHEST_MM else None


def _sensible(spacing: Vector | None) -> Vector | None:
    least, most = _SPACING_MM
    return spacing if spacing and all(least <= mm <= most for mm in spacing) else None
