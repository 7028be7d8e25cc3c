"""Files that are no NIfTI image, known by their first bytes, each with the way out.

Only for words: nothing here decides what is accepted, and nothing is opened. Programs come first,
because a DICOM file may carry one in front of its own mark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Foreign", "recognise"]


@dataclass(frozen=True)
class Foreign:
    """A kind of file that people or attackers send instead of an image.

    Args:
        name: what it is, with its article.
        way_out: what its sender can do.
        marks: bytes, any of which at ``offset`` gives it away.
        offset: where the mark stands.
    """

    name: str
    way_out: str
    marks: tuple[bytes, ...]
    offset: int = 0


_NO_IMAGE: Final = "Check where the file comes from: it holds no image."
_UNPACK: Final = "Unpack it and hand over the image itself."
_PICTURE: Final = "Hand over the volume, not a picture of it."
_NIBABEL: Final = "Convert it to NIfTI, for example with nibabel."

_KINDS: Final = (
    Foreign("a program", _NO_IMAGE, (b"MZ", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")),
    Foreign("a script", _NO_IMAGE, (b"#!",)),
    Foreign("a DICOM file", "Convert the series with dcm2niix.", (b"DICM",), offset=128),
    Foreign("a zip archive", _UNPACK, (b"PK\x03\x04", b"PK\x05\x06")),
    Foreign("a tar archive", _UNPACK, (b"ustar",), offset=257),
    Foreign("a 7-Zip archive", _UNPACK, (b"7z\xbc\xaf\x27\x1c",)),
    Foreign("an xz, bzip2 or Zstandard file", _UNPACK, (b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd")),
    Foreign("a gzip file inside a gzip file", "Compress it once only.", (b"\x1f\x8b",)),
    Foreign(
        "a Python pickle",
        "Save the image as NIfTI, for example with nibabel: pickles are never opened.",
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
    ),
    Foreign("a NumPy file", _NIBABEL, (b"\x93NUMPY",)),
    Foreign("a PNG picture", _PICTURE, (b"\x89PNG",)),
    Foreign("a JPEG picture", _PICTURE, (b"\xff\xd8\xff",)),
    Foreign("a TIFF picture", _PICTURE, (b"II*\x00", b"MM\x00*")),
    Foreign("a PDF document", _PICTURE, (b"%PDF",)),
    Foreign("an NRRD image", _NIBABEL, (b"NRRD",)),
    Foreign("a MetaImage", _NIBABEL, (b"ObjectType", b"NDims")),
    Foreign("a MINC or HDF5 file", _NIBABEL, (b"\x89HDF", b"CDF\x01", b"CDF\x02")),
    Foreign(
        "a Git LFS pointer instead of the file",
        "Fetch the file itself with `git lfs pull`.",
        (b"version https://git-lfs",),
    ),
    Foreign(
        "a web page or a text document",
        "A download may have given an error page: look into the file.",
        (b"<", b"{", b"\xef\xbb\xbf"),
    ),
)


def recognise(start: bytes) -> Foreign | None:
    """Name the kind of a file by its first 348 bytes, or fewer if it is shorter."""
    for kind in _KINDS:
        if any(start.startswith(mark, kind.offset) for mark in kind.marks):
            return kind
    return None
