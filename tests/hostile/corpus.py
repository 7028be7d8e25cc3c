"""Files that strangers may send instead of an image, made in code: no binary file is kept.

Every entry has a name, a recipe, and what is expected of it: that it is refused (and with which
words), or that it is odd but fine. The recipes give the same bytes every time.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tests.model_core.imaging.builders import BRATS_AFFINE, nifti_bytes, random_image, rotation

SHAPE = (12, 13, 14)
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Hostile:
    """One file: ``says`` is in the refusal's text; None where the file is accepted."""

    name: str
    make: Callable[[], bytes]
    says: str | None


@cache
def corpus() -> tuple[Hostile, ...]:
    """All of them."""
    groups = (
        cut_gzip(), broken_gzip(), bombs(), affines(), dimensions(), marks(), types(), scales(),
        offsets(), extensions(), voxels(), lengths(), foreigners(),
    )  # fmt: skip
    return tuple(entry for group in groups for entry in group)


@cache
def image() -> np.ndarray:
    return random_image(SHAPE, seed=7)


@cache
def raw() -> bytes:
    return nifti_bytes(image(), compress=False)


@cache
def packed() -> bytes:
    return gzip.compress(raw(), 6, mtime=0)


def constant(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def headed(name: str, says: str | None, array: Any = None, **fields: Any) -> Hostile:
    """A whole file, well compressed, with some header fields overwritten."""

    def make() -> bytes:
        return nifti_bytes(image() if array is None else array, **fields)

    return Hostile(name, make, says)


# The gzip stream


def cut_gzip() -> list[Hostile]:
    whole = len(packed())
    # one byte is no gzip mark yet; from the end backwards: length, checksum, data
    lengths = (2, 3, 9, 10, 11, 40, 400, whole // 2, whole - 9, whole - 8, whole - 4, whole - 1)
    return [
        Hostile(f"gzip cut after {length} bytes", constant(packed()[:length]), "whole gzip file")
        for length in lengths
    ]


def flipped(position: int, value: int) -> Callable[[], bytes]:
    def make() -> bytes:
        data = bytearray(packed())
        data[position] ^= value
        return bytes(data)

    return make


def pieces(size: int) -> bytes:
    return b"".join(gzip.compress(raw()[n : n + size]) for n in range(0, len(raw()), size))


def broken_gzip() -> list[Hostile]:
    bad = "whole gzip file"
    empty = gzip.compress(b"", mtime=0)
    header = b"\x1f\x8b\x08"
    return [
        Hostile("gzip with a wrong checksum", flipped(-8, 1), bad),
        Hostile("gzip with a wrong length", flipped(-4, 1), bad),
        Hostile("gzip with an unknown method", flipped(2, 1), bad),
        Hostile("gzip with reserved flags", flipped(3, 0xE0), None),
        Hostile("gzip with damage in the middle", flipped(len(packed()) // 2, 0x55), bad),
        Hostile("gzip whose name never ends", constant(header + b"\x08" + b"a" * 9000), bad),
        Hostile("gzip whose extra field is missing", constant(header + b"\4\0\0\0\0\0\0\xff"), bad),
        Hostile("gzip of nothing", constant(empty), "an empty file"),
        Hostile("gzip of nothing, then the image", lambda: empty + packed(), None),
        Hostile("gzip in members of 100 bytes", lambda: pieces(100), None),
        Hostile("gzip in members of 1 byte", lambda: pieces(1), None),
        Hostile("gzip padded with zeros", lambda: packed() + bytes(10_000), None),
        Hostile("gzip and other bytes after it", lambda: packed() + b"PK\3\4", "followed by other"),
        Hostile("gzip and a lonely 1F after it", lambda: packed() + b"\x1f", bad),
        Hostile("two images in one gzip file", lambda: packed() + packed(), "got more"),
        Hostile("70 000 empty members", lambda: empty * 70_000, "cut into too many parts"),
        Hostile("gzip inside gzip", lambda: gzip.compress(packed()), "gzip file inside a gzip"),
        Hostile("zlib stream without gzip", lambda: zlib.compress(raw()), "something else"),
    ]


def zeros(mebibytes: int, before: bytes) -> bytes:
    """One gzip member: some bytes, then zeros, a thousand times smaller; its checksum is wrong."""
    packer = zlib.compressobj(9, wbits=-15)
    start = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\3" + start + block * mebibytes + packer.flush() + bytes(8)


def claiming(*dim: int, version: int = 1) -> bytes:
    """A header alone that promises float64 voxels."""
    fields = {"dim": (3, *dim, 1, 1, 1, 1), "datatype": 64, "bitpix": 64}
    return nifti_bytes(image()[:0], version=version, compress=False, **fields)


def bombs() -> list[Hostile]:
    member = gzip.compress(bytes(64 * MEBIBYTE), 9)
    stored = b"\0\0\0\xff\xff"  # an empty block of deflate
    gap = {"vox_offset": 352 + 16 * MEBIBYTE}
    return [
        Hostile("a small image, then 2 GiB of zeros", lambda: zeros(2048, raw()), "got more"),
        Hostile("a small image, then 4 GiB in members", lambda: packed() + member * 64, "got more"),
        Hostile("2 GiB of zeros and no header", lambda: zeros(2048, b""), "something else"),
        Hostile(
            "a promise of 8 TiB",
            lambda: gzip.compress(claiming(2**14, 2**13, 2**13)),
            "voxels along each axis",
        ),
        Hostile(
            "a promise of 8 EiB in NIfTI-2",
            lambda: gzip.compress(claiming(2**20, 2**20, 2**20, version=2)),
            "voxels along each axis",
        ),
        Hostile(
            "a promise of 2⁶³ voxels along an axis",
            lambda: gzip.compress(claiming(2**63 - 1, 9, 9, version=2)),
            "voxels along each axis",
        ),
        Hostile(
            "a promise of more voxels than allowed, kept",
            lambda: zeros(2048, claiming(1024, 1024, 128)),
            "in all at most",
        ),
        Hostile(
            "a promise of allowed size, not kept",
            lambda: gzip.compress(claiming(100, 100, 100)),
            "The file was cut off",
        ),
        Hostile(
            "a promise of allowed size, kept with zeros",
            lambda: gzip.compress(claiming(100, 100, 100) + bytes(8 * 10**6)),
            "the same value everywhere",
        ),
        Hostile(
            "a hundred thousand empty blocks",
            lambda: b"\x1f\x8b\x08\0\0\0\0\0\0\3" + stored * 100_000,
            "whole gzip file",
        ),
        Hostile(
            "16 MiB of zeros between header and voxels",
            lambda: gzip.compress(
                nifti_bytes(image(), compress=False, **gap)[:352]
                + bytes(16 * MEBIBYTE)
                + raw()[352:]
            ),
            None,
        ),
    ]


# The header


def uncoded() -> bytes:
    return gzip.compress(raw()[:252] + struct.pack("<hh", -9, -1) + raw()[256:])


def tilted() -> np.ndarray:
    """A turn of the usual grid about the image's centre."""
    affine = BRATS_AFFINE.copy()
    affine[:3, :3] = rotation(20, 0) @ BRATS_AFFINE[:3, :3]
    middle = (np.array(SHAPE) - 1) / 2
    affine[:3, 3] += (BRATS_AFFINE - affine)[:3, :3] @ middle
    return affine


def affines() -> list[Hostile]:
    bad, flat = "a finite, invertible 4×4 matrix", "in one plane"
    thin = np.diag((0.01, 0.01, 0.01, 1))
    near = {"srow_x": (1, 1, 0, 0), "srow_y": (1, 1.0001, 0, 0)}
    return [
        headed("an affine with NaN", bad, srow_x=(np.nan, 0, 0, 0)),
        headed("an affine with infinity", bad, srow_y=(0, np.inf, 0, 0)),
        headed("an affine of zeros", flat, srow_x=(0,) * 4, srow_y=(0,) * 4, srow_z=(0,) * 4),
        headed("an affine with a zero axis", flat, srow_z=(0, 0, 0, 0)),
        headed("an affine with two equal axes", flat, srow_x=(1, 1, 0, 0), srow_y=(1, 1, 0, 0)),
        headed("an affine with nearly equal axes", flat, **near),
        headed("an affine of 1e38", "got", srow_x=(1e38, 0, 0, 0), qform_code=0),
        headed("voxels of 1e-38 mm", "got", srow_x=(1e-38, 0, 0, 0), qform_code=0),
        headed("voxels of 0.01 mm", "voxels of 0.2 to 10 mm", affine=thin),
        headed("voxels of 50 mm", "voxels of 0.2 to 10 mm", affine=np.diag((50.0, 50, 50, 1))),
        headed("an origin at 1e30 mm", "origin within", srow_x=(-1, 0, 0, 1e30), qform_code=0),
        headed("a quaternion that is none", "a qform with", sform_code=0, quatern_b=3),
        headed("a quaternion of NaN", "a qform with", sform_code=0, quatern_c=np.nan),
        headed("a quaternion of NaN that is not used", None, qform_code=0, quatern_c=np.nan),
        headed("spacings of NaN that are not used", None, qform_code=0, pixdim=(np.nan,) * 8),
        headed("spacings of zero", "a qform with", sform_code=0, pixdim=(0,) * 8),
        headed("two forms that disagree by 5 mm", "within 1 mm of each other", qoffset_x=5),
        headed("two forms that disagree by 0.5 mm", None, qoffset_x=0.5),
        headed("two forms that disagree by infinity", "a qform with", qoffset_x=np.inf),
        headed("no form at all", "a coded orientation", sform_code=0, qform_code=0),
        Hostile("negative codes of form", uncoded, "a coded orientation"),
        headed("an image in metres", "millimetres", xyzt_units=1),
        headed("an image in an unknown unit", "millimetres", xyzt_units=255),
        headed("a tilted image among straight ones", None, affine=tilted()),
    ]  # fmt: skip


def dimensions() -> list[Hostile]:
    each, volume = "voxels along each axis", "one 3-D volume"
    four = image()[..., None]
    return [
        headed("no dimensions", volume, dim=(0,) * 8),
        headed("one dimension", volume, dim=(1, 2184, 1, 1, 1, 1, 1, 1)),
        headed("two dimensions", volume, dim=(2, 12, 182, 1, 1, 1, 1, 1)),
        headed("eight dimensions", volume, dim=(8, *SHAPE, 1, 1, 1, 1)),
        headed("minus three dimensions", volume, dim=(-3, *SHAPE, 1, 1, 1, 1)),
        headed("a zero axis", each, dim=(3, 0, 13, 14, 1, 1, 1, 1)),
        headed("a negative axis", each, dim=(3, -12, 13, 14, 1, 1, 1, 1)),
        headed("two negative axes", each, dim=(3, -12, -13, 14, 1, 1, 1, 1)),
        headed("axes of 32767", each, dim=(3, 32767, 32767, 32767, 1, 1, 1, 1)),
        headed("a single slice", each, dim=(3, 12, 182, 1, 1, 1, 1, 1)),
        headed("a fourth axis of 0", volume, dim=(4, *SHAPE, 0, 1, 1, 1)),
        headed("a fourth axis of -1", volume, dim=(4, *SHAPE, -1, 1, 1, 1)),
        headed("two volumes", volume, np.concatenate([four, four], axis=3)),
        headed("vectors along a fifth axis", volume, dim=(5, *SHAPE, 1, 3, 1, 1)),
        headed("seven axes, all but three of length 1", None, dim=(7, *SHAPE, 1, 1, 1, 1)),
        headed("one volume of a series", None, four),
    ]


def sized(header_size: int, order: str = "<") -> Callable[[], bytes]:
    return lambda: gzip.compress(struct.pack(f"{order}i", header_size) + raw()[4:])


def half_swapped() -> bytes:
    big = nifti_bytes(image(), endianness=">", compress=False)
    return gzip.compress(raw()[:4] + big[4:])


def marks() -> list[Hostile]:
    other, half, damaged = "something else", "half of a .hdr/.img pair", "damaged header"
    return [
        headed("the header of a pair", half, magic=b"ni1"),
        headed("an Analyze header", "an Analyze or damaged header", magic=b""),
        headed("the mark of the other version", damaged, magic=b"n+2"),
        headed("the mark of NIfTI-1 in NIfTI-2", damaged, version=2, magic=b"n+1"),
        headed("a mark in capitals", damaged, magic=b"N+1"),
        Hostile("a header size of 0", sized(0), other),
        Hostile("a header size of -348", sized(-348), other),
        Hostile("a header size of 349", sized(349), other),
        Hostile("a header of the other order than its size", half_swapped, "one 3-D volume"),
        Hostile("a size of the other order than its header", sized(348, ">"), "one 3-D volume"),
        headed("a big-endian image", None, endianness=">"),
        headed("a NIfTI-2 image", None, version=2),
        headed("a big-endian NIfTI-2 image", None, version=2, endianness=">"),
    ]  # fmt: skip


def types() -> list[Hostile]:
    codes = {
        "no type": (0, 0), "binary": (1, 1), "complex64": (32, 64), "RGB": (128, 24),
        "all types": (255, 0), "float128": (1536, 128), "complex128": (1792, 128),
        "complex256": (2048, 256), "RGBA": (2304, 32), "type -1": (-1, 32),
        "type 32767": (32767, 8),
    }  # fmt: skip
    refused = [
        headed(f"voxels of {name}", "integer or floating-point voxels", datatype=code, bitpix=bits)
        for name, (code, bits) in codes.items()
    ]
    contradictions = [
        headed(f"float32 of {bits} bits", "32 bits per voxel", bitpix=bits)
        for bits in (0, -32, 8, 64)
    ]
    return refused + contradictions


def scales() -> list[Hostile]:
    finite = "a finite intensity scale"
    return [
        headed("a slope of NaN", finite, scl_slope=np.nan),
        headed("a slope of infinity", finite, scl_slope=-np.inf),
        headed("an intercept of NaN", finite, scl_slope=2, scl_inter=np.nan),
        headed("a slope that overflows", "NaN or infinite voxels", scl_slope=3e38),
        headed("a slope of next to nothing", None, scl_slope=1e-45),
        headed("a slope beyond float32", "NaN or infinite voxels", version=2, scl_slope=1e300),
        headed("an intercept that hides the image", "the same value", scl_slope=1, scl_inter=1e30),
        headed("a slope of 0 and an intercept of NaN", None, scl_slope=0, scl_inter=np.nan),
        headed("a negative slope", None, scl_slope=-1),
    ]


def offsets() -> list[Hostile]:
    begin = "voxels that begin"
    bad = (351, 1, -1, -352, np.nan, np.inf, -np.inf, 352.5, 1e30, 2**25)
    return [
        *(headed(f"voxels at byte {offset:g}", begin, vox_offset=offset) for offset in bad),
        headed("voxels beyond the end", "The file was cut off", vox_offset=100_000),
        headed("voxels at byte -2⁶³", begin, version=2, vox_offset=-(2**63)),
        headed("voxels at byte 2⁶³ - 1", begin, version=2, vox_offset=2**63 - 1),
        headed("voxels at no byte in particular", None, vox_offset=0),
    ]


def extended(size: int, flag: bytes = b"\1\0\0\0", content: bytes = bytes(24)) -> bytes:
    header = bytearray(raw()[:348])
    header[108:112] = struct.pack("<f", 352 + 8 + len(content))
    return gzip.compress(header + flag + struct.pack("<ii", size, 6) + content + raw()[352:])


def extensions() -> list[Hostile]:
    sizes = {"0": 0, "-32": -32, "7": 7, "2 GiB": 2**31 - 1, "-2 GiB": -(2**31)}
    listed = [
        Hostile(f"an extension of size {name}", lambda size=size: extended(size), None)
        for name, size in sizes.items()
    ]
    return [
        *listed,
        Hostile("an extension that nobody announced", lambda: extended(32, bytes(4)), None),
        Hostile("an extension that holds a program", lambda: extended(32, content=PROGRAM), None),
    ]


# The voxels


def with_voxel(value: float, dtype: str) -> np.ndarray:
    array = image().astype(dtype)
    array[5, 5, 5] = value
    return array


def extremes(dtype: str) -> np.ndarray:
    array = image().astype(dtype)
    array[5, 5, 5], array[6, 6, 6] = np.iinfo(dtype).max, np.iinfo(dtype).min
    return array


def voxels() -> list[Hostile]:
    bad, same = "NaN or infinite voxels", "the same value everywhere"
    noise = np.random.default_rng(3).integers(0, 256, (*SHAPE, 4), np.uint8)
    return [
        headed("all voxels NaN", bad, np.full(SHAPE, np.nan, "f4")),
        headed("one voxel NaN", bad, with_voxel(np.nan, "f4")),
        headed("one voxel infinite", bad, with_voxel(-np.inf, "f8")),
        headed("one voxel beyond float32", bad, with_voxel(1e300, "f8")),
        headed("all voxels 0", same, np.zeros(SHAPE, "i2")),
        headed("all voxels 7", same, np.full(SHAPE, 7, "u1")),
        headed("random bits for float32", bad, noise.view("f4")[..., 0]),
        headed("denormal voxels", None, with_voxel(1e-45, "f4")),
        headed("the extremes of int64", None, extremes("i8")),
        headed("the extremes of uint64", None, extremes("u8")),
        headed("the extremes of int32", None, extremes("i4")),
    ]


def lengths() -> list[Hostile]:
    cut = "The file was cut off"
    second = nifti_bytes(image(), version=2, compress=False)
    return [
        Hostile("a header alone", lambda: raw()[:348], cut),
        Hostile("a header alone, compressed", lambda: gzip.compress(raw()[:348]), cut),
        Hostile("a NIfTI-2 header alone", lambda: second[:540], cut),
        Hostile("half of a NIfTI-2 header", lambda: second[:400], cut),
        Hostile("header and no voxels", lambda: raw()[:352], cut),
        Hostile("one byte too few", lambda: raw()[:-1], cut),
        Hostile("one byte too few, compressed", lambda: gzip.compress(raw()[:-1]), cut),
        Hostile("one byte too many", lambda: raw() + b"\0", "got more"),
        Hostile("one byte too many, compressed", lambda: gzip.compress(raw() + b"\0"), "got more"),
        Hostile("half a header", lambda: raw()[:200], cut),
        Hostile("nothing", constant(b""), "an empty file"),
        Hostile("one byte", constant(b"\x5c"), "something else"),
        Hostile("four bytes", constant(b"\x5c\1\0\0"), cut),
    ]


# Other things than images

PROGRAM = b"MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff\0\0\xb8\0\0\0\0\0\0\0"
ELF = b"\x7fELF\2\1\1\0" + bytes(8) + b"\2\0\x3e\0\1\0\0\0" + bytes(500)


class _Pwned:
    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("__import__('os').abort()",))


def pickled(protocol: int) -> Callable[[], bytes]:
    return lambda: pickle.dumps(_Pwned(), protocol)


def zipped(*members: tuple[str, bytes, int]) -> bytes:
    """Each member: its name, its content, and its Unix mode (a link has 0o120777)."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in members:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def tarred(name: str, link: str = "") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, "")
        archive.addfile(entry)
    return target.getvalue()


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def foreigners() -> list[Hostile]:
    file, link = 0o100644, 0o120777
    dicom, other = bytes(128) + b"DICM\2\0\0\0UL\4\0" + bytes(300), "something else"
    table: list[tuple[str, Callable[[], bytes], str]] = [
        *((f"a pickle, protocol {p}", pickled(p), "a Python pickle") for p in range(2, 6)),
        ("a pickle, protocol 0", pickled(0), other),
        ("a zip with the image", lambda: zipped(("a.nii", raw(), file)), "a zip archive"),
        ("a zip that climbs", lambda: zipped(("../../etc/x", b"x", file)), "a zip archive"),
        ("a zip with a link", lambda: zipped(("a.nii", b"/etc/passwd", link)), "a zip archive"),
        ("an empty zip", zipped, "a zip archive"),
        ("a zip inside gzip", lambda: gzip.compress(zipped(("a", b"", file))), "a zip archive"),
        ("a tar that climbs", lambda: tarred("../../etc/x"), "a tar archive"),
        ("a tar with a link", lambda: tarred("a.nii", "/etc/passwd"), "a tar archive"),
        ("a tar.gz", lambda: gzip.compress(tarred("a.nii")), "a tar archive"),
        ("an image in xz", lambda: lzma.compress(raw()), "an xz, bzip2 or Zstandard file"),
        ("an image in bzip2", lambda: bz2.compress(raw()), "an xz, bzip2 or Zstandard file"),
        ("a Windows program", lambda: PROGRAM.ljust(5000, b"\0"), "a program"),
        ("a Linux program", constant(ELF), "a program"),
        ("a Linux program inside gzip", lambda: gzip.compress(ELF), "a program"),
        ("a shell script", constant(b"#!/bin/sh\nexit 1\n"), "a script"),
        ("a DICOM file", constant(dicom), "a DICOM file"),
        ("a DICOM file that is a program", lambda: PROGRAM + dicom[len(PROGRAM) :], "a program"),
        ("a PNG picture", constant(b"\x89PNG\r\n\x1a\n" + bytes(400)), "a PNG picture"),
        ("a JPEG picture", constant(b"\xff\xd8\xff\xe0" + bytes(400)), "a JPEG picture"),
        ("a PDF document", constant(b"%PDF-1.7\n"), "a PDF document"),
        ("a web page", constant(b"<!doctype html><title>404</title>"), "a web page"),
        ("JSON", constant(b'{"error": "not found"}'), "a web page or a text"),
        ("text", constant(b"no image at all, " * 40), other),
        ("a NumPy file", constant(b"\x93NUMPY\1\0v\0{'descr': '|O'"), "a NumPy file"),
        ("zeros", constant(bytes(100_000)), other),
        ("ones", constant(b"\xff" * 100_000), other),
        ("noise of 347 bytes", lambda: noise(347), other),
        ("noise of 100 000 bytes", lambda: noise(100_000), other),
        ("noise inside gzip", lambda: gzip.compress(noise(10_000)), other),
        ("noise after the mark of gzip", lambda: b"\x1f\x8b\x08\0" + noise(9_000), "gzip file"),
        ("noise after a header's size", lambda: b"\x5c\1\0\0" + noise(9_000), "damaged header"),
    ]  # fmt: skip
    return [Hostile(name, make, says) for name, make, says in table]
