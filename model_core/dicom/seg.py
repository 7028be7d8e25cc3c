"""A label map as a DICOM Segmentation on the grid of the series that it was drawn on.

Nothing is resampled and nothing is flipped by hand. The label map's affine says where each voxel
lies; of the 48 ways to turn the source's stack, the one is taken that puts every voxel at the same
place (`Grid.matches`), and if there is none the map is refused. Each frame then repeats position,
orientation and spacing of its source slice, number for number.

Frames: `affine` maps to RAS+ mm; the object says LPS+ mm, as its source does.

Sources: PS3.3, A.51 and C.8.20 (Segmentation); Supplement 243 for LABELMAP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from itertools import permutations, product
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from model_core.dicom.codes import (
    ABNORMAL_STRUCTURE,
    BRAIN,
    SEGMENTS,
    STRUCTURES,
    Structure,
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
from model_core.dicom.sources import Sources
from model_core.errors import ImageError, OptionError
from model_core.imaging.grid import SAME_GRID_TOLERANCE_MM, Grid
from model_core.imaging.orientation import turn
from model_core.types import Label

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription

SegKind = Literal["BINARY", "LABELMAP"]
"""BINARY: a bit for each voxel and segment. LABELMAP: a byte for each voxel, since 2024."""
SEG_KINDS: Final[tuple[SegKind, ...]] = get_args(SegKind)
GRID_TOLERANCE: Final = 0.05
"""In voxels. Headers and label maps round their numbers, so that a grid drifts by hundredths of a
millimetre over a head; the nearest wrong answer is a whole voxel away."""


@dataclass(frozen=True)
class SegReference:
    """What a report needs to point at a SEG and into it.

    Attributes:
        study_uid: StudyInstanceUID (0020,000D).
        series_uid: SeriesInstanceUID (0020,000E).
        sop_class_uid: SOPClassUID (0008,0016), which differs between BINARY and LABELMAP.
        sop_instance_uid: SOPInstanceUID (0008,0018).
        tracking_uids: TrackingUID (0062,0021) of each segment.
    """

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    tracking_uids: Mapping[StructureName, str]


def encode_seg(
    labels: NDArray[np.uint8],
    affine: NDArray[np.float64],
    sources: Sources,
    *,
    algorithm: Algorithm,
    output: Output,
    kind: SegKind = "BINARY",
) -> bytes:
    """Write a label map as a SEG with one segment a label: NCR, ED, ET.

    An empty map gives a valid object too, so that every run leaves the same set of objects and its
    report has segments to point at: all segments are described, and all frames are there and empty,
    as an object of none is not allowed.

    Args:
        labels: (X, Y, Z), internal labels, in any of the 48 axis orders.
        affine: 4 × 4, voxel index of ``labels`` → RAS+ mm.
        sources: the series whose grid this is.
        algorithm: the model that drew the labels.
        output: name, number and date of the new series.
        kind: how the voxels are stored.

    Returns:
        The bytes of a DICOM file, the same for the same arguments.

    Raises:
        ImageError: the labels are none, their grid is not the source's, or the headers of the
            source cannot be written from.
        OptionError: an unknown kind.
    """
    _check(labels, kind)
    planes = np.ascontiguousarray(_on_source_grid(labels, affine, sources).T)
    uids = _uids(planes, sources, algorithm, output, kind)
    with quiet_writing():
        segmentation = _segmentation(planes, sources, algorithm, output, kind, uids)
        _settle_dimensions(segmentation, uids[1])
        _settle_frame_numbers(segmentation, sources.frame_numbers)
        segmentation.ContentCreatorName = None  # must be there (type 2), and no person is it
        return finished(segmentation, sources, output)


def seg_reference(seg: bytes) -> SegReference:
    """Read from a SEG made by `encode_seg` what a report refers to.

    Raises:
        ImageError: not a SEG with the segments of this project.
    """
    from pydicom import dcmread

    with quiet_writing():
        header = dcmread(BytesIO(seg), stop_before_pixels=True)
        tracking = {
            STRUCTURES[SEGMENTS[item.SegmentNumber - 1]].name: str(item.TrackingUID)
            for item in header.SegmentSequence
            if item.SegmentNumber  # 0 is the background of a LABELMAP
        }
        return SegReference(
            str(header.StudyInstanceUID),
            str(header.SeriesInstanceUID),
            str(header.SOPClassUID),
            str(header.SOPInstanceUID),
            MappingProxyType(tracking),
        )


# ---------------------------------------------------------------- every voxel at its place


def _check(labels: NDArray[np.uint8], kind: str) -> None:
    if kind not in SEG_KINDS:
        raise OptionError(
            "kind",
            expected=f"one of {', '.join(SEG_KINDS)}",
            got=repr(kind),
            way_out="BINARY is what most viewers read.",
        )
    if labels.ndim != 3 or labels.dtype != np.uint8 or labels.max(initial=0) > max(Label):
        raise ImageError(
            "labels",
            expected="a 3-D uint8 map of internal labels 0 to 3",
            got=f"{labels.ndim} axes, {labels.dtype}, up to {labels.max(initial=0)}",
            way_out="Read file values with from_scheme first.",
        )


def _on_source_grid(
    labels: NDArray[np.uint8], affine: NDArray[np.float64], sources: Sources
) -> NDArray[np.uint8]:
    """View the labels as columns × rows × slices of the source; no value is changed."""
    grid, target = Grid(_shape(labels), affine), sources.grid
    tolerance = max(SAME_GRID_TOLERANCE_MM, GRID_TOLERANCE * min(target.spacing_mm))
    for axcodes in (grid.axcodes, *_orientations()):
        if grid.matches(target.reoriented(axcodes), tolerance):
            return turn(labels, axcodes, target.axcodes)
    raise ImageError(
        "labels",
        expected=f"the grid of the source series: {target.describe()}",
        got=grid.describe(),
        way_out="Bring the label map back to the grid of the reference series first: nothing is "
        "resampled here.",
    )


def _shape(labels: NDArray[np.uint8]) -> tuple[int, int, int]:
    x, y, z = labels.shape
    return x, y, z


def _orientations() -> Iterator[str]:
    """All 48; near 45 degrees two almost equal grids may be named after different ones."""
    for pairs in permutations(("RL", "AP", "SI")):
        for letters in product(*pairs):
            yield "".join(letters)


# ---------------------------------------------------------------- the object


def _uids(
    planes: NDArray[np.uint8],
    sources: Sources,
    algorithm: Algorithm,
    output: Output,
    kind: SegKind,
) -> tuple[str, str]:
    """Series and instance UID: other voxels, weights, options or times make another object."""
    content = sha256(planes.data).hexdigest()
    parts = (
        kind,
        sources.series_uid,
        f"{sources.frame_numbers}",
        algorithm.identity,
        content,
        output.created.isoformat(),
        f"{output.series_number} {output.series_description}",
        software_version(),
    )
    return uid_of("seg series", *parts), uid_of("seg", *parts)


def _segmentation(
    planes: NDArray[np.uint8],
    sources: Sources,
    algorithm: Algorithm,
    output: Output,
    kind: SegKind,
    uids: tuple[str, str],
) -> Segmentation:
    from highdicom.seg import Segmentation

    return Segmentation(
        source_images=sources.headers,
        pixel_array=planes,
        segmentation_type=kind,
        segment_descriptions=[
            _description(STRUCTURES[name], sources, algorithm) for name in SEGMENTS
        ],
        content_label="BRAIN_TUMOUR",
        content_description="Brain tumour segmentation",
        omit_empty_frames=True,
        **common_arguments(algorithm, output, uids),
    )


def _description(
    structure: Structure, sources: Sources, algorithm: Algorithm
) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription

    (label,) = structure.labels
    return SegmentDescription(
        segment_number=int(label),
        segment_label=structure.text,
        segmented_property_category=ABNORMAL_STRUCTURE.code(),
        segmented_property_type=structure.kind.code(),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=algorithm.name,
            family=algorithm_family(),
            version=algorithm.version,
            source=MANUFACTURER,
            parameters={**algorithm.parameters, "weights_sha256": algorithm.weights_sha256},
        ),
        tracking_uid=tracking_uid(sources, algorithm, structure.name),
        tracking_id=structure.name,
        anatomic_regions=[BRAIN.code()],
        display_color=structure.colour(),
    )


def _settle_dimensions(segmentation: Segmentation, sop_instance_uid: str) -> None:
    """Replace the one random UID that highdicom makes up."""
    uid = uid_of("dimensions", sop_instance_uid)
    segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for item in segmentation.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid


def _settle_frame_numbers(segmentation: Segmentation, numbers: Sequence[int]) -> None:
    """Name the frames of an enhanced source by its own count, not by that of the slices."""
    if not numbers:
        return
    images = {
        id(image): image  # frames of several segments share the item of their slice
        for group in segmentation.PerFrameFunctionalGroupsSequence
        for derivation in group.DerivationImageSequence
        for image in derivation.SourceImageSequence
    }
    for image in images.values():
        image.ReferencedFrameNumber = numbers[int(image.ReferencedFrameNumber) - 1]
