"""The DICOM objects of an answer: a SEG, and a report of measurements that points into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from model_core.dicom.derived import Algorithm, Output
from model_core.dicom.seg import SegKind, encode_seg
from model_core.dicom.sources import sources_of
from model_core.dicom.sr import RegionMeasurement, encode_sr
from model_core.imaging.volume import Volume

if TYPE_CHECKING:
    from model_core.dicom.series import Series
    from model_core.findings import Statistics
    from model_core.inference.segmentation import Segmentation

SEG_NUMBER: Final = 9001
"""SeriesNumber of the SEG: far above what scanners count to; the report's is one more."""
_DESCRIPTIONS: Final = ("Brain tumour segmentation (AI)", "Brain tumour measurements (AI)")


@dataclass(frozen=True, kw_only=True)
class DicomObjects:
    """Two files, as bytes."""

    seg: bytes
    sr: bytes


def algorithm_of(segmentation: Segmentation) -> Algorithm:
    """The model of a run, as DICOM objects name it."""
    return Algorithm(
        name=segmentation.model,
        version=segmentation.model_version,
        weights_sha256=segmentation.weights_sha256,
        parameters={
            "tta": str(segmentation.tta["mode"]),
            "window": segmentation.window_choice,
            "precision": segmentation.precision,
        },
    )


def measurements_of(statistics: Statistics) -> list[RegionMeasurement]:
    """The figures of every structure, as the report holds them."""
    return [
        RegionMeasurement(
            name=one.name,  # type: ignore[arg-type]  # the same five names
            volume_ml=one.volume_ml,
            longest_mm=one.diameter.length_mm if one.diameter else None,
            major_mm=one.axial.long.length_mm if one.axial else None,
            perpendicular_mm=one.axial.short.length_mm if one.axial else None,
        )
        for one in statistics.structures
    ]


def dicom_objects(
    labels: Volume,
    source: Series,
    *,
    algorithm: Algorithm,
    measurements: Sequence[RegionMeasurement],
    created: datetime,
    kind: SegKind = "BINARY",
) -> DicomObjects:
    """Write the objects of one run.

    Args:
        labels: internal labels, uint8, on the grid of the source.
        source: the series whose grid that is; its files are opened for their headers.
        algorithm: the model.
        measurements: of the labels.
        created: when the run was, in the archive's local time.
        kind: how the SEG stores its voxels.

    Raises:
        ImageError: the labels lie on another grid, or a header cannot be written from.
    """
    sources = sources_of(source)
    made = [
        Output(created=created, series_number=SEG_NUMBER + number, series_description=text)
        for number, text in enumerate(_DESCRIPTIONS)
    ]
    seg = encode_seg(
        labels.array, labels.affine, sources, algorithm=algorithm, output=made[0], kind=kind
    )
    sr = encode_sr(measurements, seg, sources, algorithm=algorithm, output=made[1])
    return DicomObjects(seg=seg, sr=sr)
