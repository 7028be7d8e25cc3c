"""DICOM files made to hurt, each by name: refused in words and within a bounded memory."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from model_core.dicom.codestream import claimed_size
from model_core.dicom.limits import DicomLimits
from model_core.dicom.series import Series, list_series
from model_core.dicom.volume import read_series
from model_core.errors import ImageError
from model_core.imaging.grid import Grid
from tests.dicom_series import geometry_affine, slices_of
from tests.hostile.dicom_seeds import as_bytes

SHAPE = (8, 9, 3)
IMAGE = np.random.default_rng(0).integers(0, 200, SHAPE)
AFFINE = geometry_affine(shape=SHAPE)
EXPLICIT, DEFLATED = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"
RLE, JPEG = b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_2000 = b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.90"
LONG_FORMS = (b"SQ", b"OB", b"OW", b"UN", b"UT")
UNDEFINED = 0xFFFFFFFF
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
END_OF_ITEM = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
UNWANTED = (0x0008, 0x1140)
PER_FRAME = (0x5200, 0x9230)
MEBIBYTE = 2**20


@cache
def slice_bytes() -> bytes:
    return as_bytes(slices_of(IMAGE, AFFINE)[0])


def element(
    tag: tuple[int, int], vr: bytes, value: bytes = b"", length: int | None = None
) -> bytes:
    """An element in Explicit VR Little Endian, with a length of its own or any other."""
    size = len(value) if length is None else length
    form = "<HH2s2xI" if vr in LONG_FORMS else "<HH2sH"
    return struct.pack(form, *tag, vr, size) + value


def pixels_at() -> int:
    return slice_bytes().index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))


def with_more(extra: bytes) -> bytes:
    """A good slice with more before its pixels."""
    data, place = slice_bytes(), pixels_at()
    return data[:place] + extra + data[place:]


def stored_as(syntax: bytes, after_meta: Callable[[bytes], bytes] = lambda rest: rest) -> bytes:
    """A good slice that says another transfer syntax, with its data set changed."""
    data = slice_bytes()
    place = data.index(EXPLICIT)
    end = data.index(struct.pack("<HH2s", 0x0008, 0x0008, b"CS"))
    meta = data[: place - 2] + struct.pack("<H", len(syntax)) + syntax
    return meta + data[place + len(EXPLICIT) : end] + after_meta(data[end:])


def compressed_as(syntax: bytes, frame: bytes, frames: int = 1) -> bytes:
    """A good slice whose pixels are some bytes that claim to be compressed."""
    body = element((0x7FE0, 0x0010), b"OB", length=UNDEFINED) + EMPTY_ITEM
    frame += b"\0" * (len(frame) % 2)
    body += (struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame) * frames + END
    place = struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW")
    return stored_as(syntax, lambda rest: rest[: rest.index(place)] + body)


def patched(tag: tuple[int, int], vr: bytes, value: bytes) -> bytes:
    """A good slice with another value, of the same length, in one tag."""
    start = slice_bytes().index(struct.pack("<HH2s", *tag, vr))
    return slice_bytes()[: start + 8] + value + slice_bytes()[start + 8 + len(value) :]


def nested(depth: int, tag: tuple[int, int], *, closed: bool = True) -> bytes:
    opening = (element(tag, b"SQ", length=UNDEFINED) + ITEM) * depth
    return opening + ((END_OF_ITEM + END) * depth if closed else b"")


def boxed(depth: int) -> bytes:
    """Sequences within sequences, each of a defined length."""
    inner = b""
    for _ in range(depth):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
        inner = element(PER_FRAME, b"SQ", item)
    return inner


def jpeg(rows: int, columns: int, code: int = 0xC3) -> bytes:
    body = struct.pack(">BHHB3B", 16, rows, columns, 1, 1, 0x11, 0)
    start = b"\xff\xd8\xff" + bytes([code]) + struct.pack(">H", len(body) + 2) + body
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00" + bytes(200)
    return start + scan + b"\xff\xd9"


def jpeg_2000(rows: int, columns: int) -> bytes:
    sizes = struct.pack(">8I", columns, rows, 0, 0, columns, rows, 0, 0)
    body = struct.pack(">H", 0) + sizes + struct.pack(">H3B", 1, 15, 1, 1)
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(body) + 2) + body + bytes(200)


def run_lengths(repeats: int) -> bytes:
    """One RLE frame of 128 bytes for every two."""
    header = struct.pack("<16I", 2, 64, 64 + repeats, *[0] * 13)
    return header + b"\x81\x00" * repeats


def deflated_bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return stored_as(DEFLATED, lambda _: block * 2048 + packer.flush())


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "sequences 1000 deep": (lambda: with_more(nested(1000, UNWANTED)), "damaged"),
    "sequences 1000 deep in a tag that is read": (
        lambda: with_more(nested(1000, PER_FRAME)), "damaged",
    ),
    "sequences 100 000 deep that never end": (
        lambda: with_more(nested(100_000, UNWANTED, closed=False)), "damaged",
    ),
    "unknown values 1000 deep": (
        lambda: with_more(nested(1000, UNWANTED).replace(b"SQ\0\0", b"UN\0\0")), "damaged",
    ),
    "boxes 600 deep of a defined length": (lambda: with_more(boxed(600)), "where they lie"),
    "a million empty items": (
        lambda: with_more(
            element(UNWANTED, b"SQ", length=UNDEFINED) + EMPTY_ITEM * 1_000_000 + END
        ),
        "5000 pieces",
    ),
    "a million empty items of a defined length": (
        lambda: with_more(element(PER_FRAME, b"SQ", EMPTY_ITEM * 1_000_000)), "5000 items",
    ),
    "a million empty elements in an item": (
        lambda: with_more(
            element(UNWANTED, b"SQ", length=UNDEFINED) + ITEM
            + b"".join(struct.pack("<HH2sH", 0x11, n, b"LO", 0) for n in range(65_536)) * 16
            + END_OF_ITEM + END
        ),
        "5000 pieces",
    ),
    "a text that claims 4 GiB": (
        lambda: with_more(element((0x0008, 0x103E), b"UT", b"x", length=2**32 - 2)), "cut off",
    ),
    "a text of 40 MiB": (
        lambda: with_more(element((0x0008, 0x103E), b"UT", bytes(40 * MEBIBYTE))), "of at most",
    ),
    "bytes without an end": (
        lambda: with_more(element((0x0009, 0x1001), b"OB", bytes(999), length=UNDEFINED)),
        "damaged",
    ),
    "a deflated bomb of 2 GiB": (deflated_bomb, "a deflated file"),
    "65535 × 65535 pixels": (
        lambda: patched((0x28, 0x10), b"US", b"\xff\xff").replace(
            struct.pack("<HH2sHH", 0x28, 0x11, b"US", 2, 8),
            struct.pack("<HH2sHH", 0x28, 0x11, b"US", 2, 0xFFFF),
        ),
        "voxels",
    ),
    "more rows than there are pixels": (
        lambda: patched((0x28, 0x10), b"US", b"\xff\x00"), "cut off",
    ),
    "2³¹ frames": (
        lambda: with_more(element((0x28, 0x08), b"IS", b"2147483647")), "20000 frames",
    ),
    "no frame": (lambda: with_more(element((0x28, 0x08), b"IS", b"0 ")), "no number"),
    "20 000 frames without pixels for them": (
        lambda: with_more(element((0x28, 0x08), b"IS", b"20000 ")), "cut off",
    ),
    "a JPEG of 65535 × 65535": (
        lambda: compressed_as(JPEG, jpeg(65535, 65535)), "of the size that the header says",
    ),
    "a JPEG-LS of 65535 × 65535": (
        lambda: compressed_as(JPEG_LS, jpeg(65535, 65535, 0xF7)), "size that the header says",
    ),
    "a JPEG 2000 of 2³¹ × 2³¹": (
        lambda: compressed_as(JPEG_2000, jpeg_2000(2**31, 2**31)), "size that the header says",
    ),
    "a JPEG of the right size that is rubbish": (
        lambda: compressed_as(JPEG, jpeg(9, 8)), "damaged or missing",
    ),
    "a JPEG 2000 of the right size that is rubbish": (
        lambda: compressed_as(JPEG_2000, jpeg_2000(9, 8)), "damaged or missing",
    ),
    "rubbish instead of a JPEG": (
        lambda: compressed_as(JPEG, b"\xff\xd8" + b"x" * 50), "size that the header says",
    ),
    "RLE of 1 GiB in 16 MiB": (
        lambda: compressed_as(RLE, run_lengths(8 * MEBIBYTE)), "larger ones",
    ),
    "RLE that ends at once": (lambda: compressed_as(RLE, b""), "damaged or missing"),
    "100 000 fragments of nothing": (
        lambda: compressed_as(RLE, b"", frames=100_000), "5000 pieces",
    ),
    "a whole file in the preamble": (
        lambda: b"\x7fELF" + slice_bytes()[4:], "begins like a program",
    ),
}  # fmt: skip


FEWER = DicomLimits(header_reads=5_000, header_items=5_000)
"""The same law in less time."""


def read(path: Path, limits: DicomLimits) -> None:
    for series in list_series([path], limits=limits):
        one = series.problems == ("one slice only",)
        read_series(let_through(series) if one else series, limits=limits)


def let_through(series: Series) -> Series:
    """One good slice as if it were enough, so that its pixels are read."""
    rows, columns = series.frames[0].size
    grid = Grid((columns, rows, len(series.frames)), np.eye(4))
    return replace(series, problems=(), grid=grid)


def test_the_slice_that_all_of_these_are_made_of_is_good(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(slice_bytes())
    read(tmp_path / "a", FEWER)
    (tmp_path / "b").write_bytes(with_more(nested(20, UNWANTED)))
    read(tmp_path / "b", FEWER)


@pytest.mark.parametrize("name", HOSTILE)
def test_is_refused_in_words(tmp_path: Path, name: str) -> None:
    make, words = HOSTILE[name]
    path = tmp_path / "hostile"
    path.write_bytes(make())
    with pytest.raises(ImageError, match=words) as caught:
        read(path, FEWER)
    assert caught.value.argument == "dicom"


IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from tests.model_core.dicom.test_hostile import read
from model_core.dicom.limits import DicomLimits
from model_core.errors import ImageError
import pydicom.pixels.decoders.gdcm
pages = int(Path("/proc/self/statm").read_text().split()[0])
room = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (room, room))
for path in sorted(Path(sys.argv[2]).iterdir()):
    try:
        read(path, DicomLimits())
    except ImageError:
        continue
    sys.exit(f"{path.name} was accepted")
print("all refused")
"""


@pytest.mark.slow
def test_all_of_them_are_refused_in_little_memory(tmp_path: Path) -> None:
    """A gigabyte of address space beyond what the process starts with, at the usual limits."""
    for number, (make, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{number:02d}").write_bytes(make())
    done = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY, "1024", str(tmp_path)],
        capture_output=True, text=True, timeout=240, check=False,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.stdout == "all refused\n", done.stderr[-2000:]


@pytest.mark.parametrize(
    ("encoded", "size"),
    [
        (jpeg(9, 8), (9, 8, 1)),
        (b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xff\x01" + jpeg(9, 8)[2:], (9, 8, 1)),
        (jpeg(9, 8, 0xF7), (9, 8, 1)),
        (jpeg_2000(9, 8), (9, 8, 1)),
        (bytes(80) + jpeg_2000(9, 8), (9, 8, 1)),
        (bytes(800) + jpeg_2000(9, 8), None),
        (b"", None),
        (b"\xff\xd8", None),
        (b"\xff\xd8\xff\xc4\x00\x00" * 3, None),
        (b"\xff\xd8" + b"\xff" * 5000, None),
        (b"\xff\x4f\xff\x51\x00", None),
    ],
)
def test_the_size_that_a_frame_claims(encoded: bytes, size: tuple[int, int, int] | None) -> None:
    assert claimed_size(encoded) == size
