"""What a segmentation request may hold: its fields, their caps, and the form once it was read.

A study comes as four NIfTI images, as DICOM files, or as a word where to fetch it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_core.types import CONTRASTS, Contrast

OPTION_FIELDS: Final = (
    "model",
    "tta",
    "label_scheme",
    "postprocess",
    "window",
    "allow_fewer_passes",
)
READING_FIELDS: Final = (
    "preprocess",
    "grid",
    "n4",
    "seg_type",
    "images",
    *(f"series_{contrast}" for contrast in CONTRASTS),
)
"""Options that say how images become what the network sees, and what is made of the result."""
ARCHIVE_FIELDS: Final = ("dicomweb", "study_uid", "push")
"""Options that name a configured archive, and what to fetch there or where results go."""
JOB_FIELDS: Final = ("priority", "batch", "cache")
"""Options that say how a job is handled, not what it computes."""
DICOM: Final = "dicom"
"""The field of DICOM files: one archive, or as many parts as there are files."""
FIELDS: Final = (
    *CONTRASTS,
    DICOM,
    *OPTION_FIELDS,
    *READING_FIELDS,
    *ARCHIVE_FIELDS,
    *JOB_FIELDS,
)
OPTION_BYTES: Final = 256
FRAMING_BYTES: Final = 64 * 1024
"""Allowance for boundaries, part headers and options on top of the images."""
MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """Caps on one request: bytes of the whole body, bytes of one image, seconds to arrive."""

    body_bytes: int
    file_bytes: int
    seconds: float
    files: int = 5000
    """Of DICOM, when they come one by one."""


@dataclass(frozen=True, kw_only=True)
class SpooledImage:
    """One image as it was sent."""

    path: Path
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class SegmentForm:
    """The form as sent: images in the spool and the options as text.

    Attributes:
        images: NIfTI by contrast; all four, or none.
        dicom: one archive of DICOM files, where that is what came.
        options: by field.
    """

    images: Mapping[Contrast, SpooledImage]
    options: Mapping[str, str]
    dicom: SpooledImage | None = None

    @property
    def inputs(self) -> Mapping[str, SpooledImage]:
        """Every file by its field."""
        found: dict[str, SpooledImage] = dict(self.images.items())
        return {**found, DICOM: self.dicom} if self.dicom else found

    @property
    def size(self) -> int:
        """Bytes of all images."""
        return sum(image.size for image in self.inputs.values())
