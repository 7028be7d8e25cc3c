"""What is still accepted of DICOM files that strangers send, and how the rest is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from model_core.errors import ImageError

ARGUMENT: Final = "dicom"
"""What every error about DICOM files names."""


@dataclass(frozen=True, kw_only=True)
class DicomLimits:
    """Caps on one set of files; each bounds the memory or the time of reading.

    Attributes:
        files: how many, and frames of one file.
        file_bytes: of one file.
        header_bytes: of everything before the pixels that is kept; private tags are skipped and
            do not count.
        header_reads: pieces of one header. Every piece becomes an object, an empty item the
            largest (about 1 kB for 8 bytes of file).
        header_items: items of one sequence, those within them included; a frame has about 15.
        voxels: rows × columns × frames of one file, and of one series.
        longest_axis: rows or columns; larger images are listed and not read.
    """

    files: int = 20_000
    file_bytes: int = 2**30
    header_bytes: int = 16 * 2**20
    header_reads: int = 500_000
    header_items: int = 200_000
    voxels: int = 512**3
    longest_axis: int = 2048


DEFAULT_LIMITS: Final = DicomLimits()


def refuse(expected: str, got: str, way_out: str) -> ImageError:
    """Make an `ImageError` about DICOM files, one line per refusal."""
    return ImageError(ARGUMENT, expected=expected, got=got, way_out=way_out)
