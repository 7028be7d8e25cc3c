"""NIfTI files in and out: nothing a stranger sends can hurt, nothing we write loses its place.

Reading gives a `Volume` or an `ImageError`; which fields are believed is in `nifti_header`, how
compressed bytes are kept in bounds in `gunzip`. Conversions on reading, and what they lose:

==========================  ===========  ======================================================
stored                      in memory    lost
==========================  ===========  ======================================================
8 and 16 bit integers       float32      nothing
32 and 64 bit integers      float32      digits beyond 2²⁴, with a warning
float32                     float32      nothing
float64                     float32      digits beyond the seventh; refused beyond 3.4e38
anything with a scale       float32      as float32 arithmetic does
==========================  ===========  ======================================================

Writing keeps the source's geometry number for number: affine, sform and qform codes, spacing,
units and NIfTI version. Label maps are uint8 and say in their header extension what each value
means. Nothing else is taken from the source's header, so no name or date can leak.
"""

from __future__ import annotations

import stat
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from model_core.errors import ImageError
from model_core.imaging.atomic import write_atomically
from model_core.imaging.declared import declared_scheme
from model_core.imaging.foreign import recognise
from model_core.imaging.grid import Grid
from model_core.imaging.gunzip import BrokenGzipError, ByteSource, open_bytes
from model_core.imaging.nifti_header import (
    HEADER_BYTES,
    NiftiHeader,
    ReadLimits,
    nifti_version,
    parse_header,
    refuse,
)
from model_core.imaging.nifti_layout import lay_out
from model_core.imaging.volume import Volume
from model_core.labels import from_scheme, scheme_values, to_scheme
from model_core.types import LabelScheme

__all__ = [
    "ReadLimits",
    "encode_label_map",
    "read_label_map",
    "read_nifti",
    "write_label_map",
    "write_nifti",
]

DEFAULT_LIMITS: Final = ReadLimits()
_GZIP_LEVEL: Final = 1
"""Of ISA-L. A real label map of 8.9 MB: 48 kB in 1 ms (zlib's level 6: 35 kB in 50 ms); levels 2
and 3 gave nothing more."""
_PRODUCER: Final = "segmamba-service"
_EXACT_IN_FLOAT32: Final = 2**24
"""The largest number up to which float32 holds every whole number."""


def read_nifti(
    source: Path | bytes, *, argument: str, limits: ReadLimits = DEFAULT_LIMITS
) -> Volume:
    """Read one image, plain or gzip, from a file or from memory.

    Args:
        source: the file's path or its bytes; recognised by content, never by name.
        argument: what the caller calls this image, e.g. ``"t1ce"``; used in errors.
        limits: what is still accepted.

    Returns:
        float32 values in the file's own axis order, with the source's geometry.

    Raises:
        ImageError: the file is not a NIfTI image, is damaged, or breaks a rule or a limit.
    """
    data = _load(source, argument, limits)
    try:
        stream = open_bytes(data)
        header = _read_header(stream, argument, limits)
        values, warnings = _read_values(stream, header, argument)
    except BrokenGzipError as error:
        raise refuse(
            argument, "a whole gzip file", f"a stream that is {error}", "Send the file again."
        ) from error
    try:
        return Volume(values, header.affine, header.frame, header.warnings + warnings)
    except ImageError as error:
        raise refuse(argument, error.expected, error.got, error.way_out) from error


def read_label_map(
    source: Path | bytes,
    *,
    argument: str,
    on: Grid | None = None,
    scheme: LabelScheme | None = None,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> tuple[NDArray[np.uint8], Volume]:
    """Read a label map in either BraTS numbering.

    Args:
        source: the file's path or its bytes.
        argument: what the caller calls this file; used in errors.
        on: the grid that the labels must lie on, e.g. that of the images they belong to; a map in
            another axis order is turned to it, which is exact.
        scheme: the numbering of the file; None: as it declares (`declared_scheme`).
        limits: what is still accepted.

    Returns:
        labels: (X, Y, Z) uint8 in the internal numbering.
        volume: the file as it was read (or turned), with its geometry.

    Raises:
        ImageError: not an image, values that are no label map or that need a numbering which
            nobody declares, or another grid than ``on``.
    """
    volume = read_nifti(source, argument=argument, limits=limits)
    if on is not None:
        volume = volume.reoriented(on.axcodes)
        if not volume.grid.matches(on):
            raise refuse(
                argument,
                f"a label map on the grid of its images ({on.describe()})",
                f"another grid ({volume.grid.describe()})",
                "Resample it to the images with nearest-neighbour interpolation.",
            )
    scheme = scheme or declared_scheme(source)
    return from_scheme(volume.array, scheme, argument=argument), volume


def encode_label_map(
    labels: NDArray[np.uint8],
    *,
    like: Volume,
    scheme: LabelScheme,
    description: str = "brain tumour segmentation",
) -> bytes:
    """Encode labels as .nii.gz on the grid of ``like``.

    The same input gives the same bytes on the same machine. Another processor may compress
    differently; what is compressed, header and voxels, is the same everywhere.

    Args:
        labels: (X, Y, Z) in the internal numbering.
        like: the volume whose grid, codes, units and spacing the file takes over.
        scheme: the numbering of the voxels in the file.
        description: a few words for the header (80 bytes at most are kept).

    Raises:
        ImageError: the labels do not fit the grid, or the file cannot say the geometry.
    """
    if labels.shape != like.shape:
        raise refuse(
            "labels",
            f"the shape of the volume they belong to, {like.shape}",
            f"{labels.shape}",
            "Restore them to the native grid first.",
        )
    table = {
        "producer": f"{_PRODUCER} {_version()}",
        "label_scheme": scheme,
        "labels": scheme_values(scheme),
    }
    values = to_scheme(labels, scheme).astype(np.uint8, copy=False)
    raw = lay_out(values, like, description=description, label_table=table)
    return _deflate(raw)


def write_label_map(
    path: Path,
    labels: NDArray[np.uint8],
    *,
    like: Volume,
    scheme: LabelScheme,
    description: str = "brain tumour segmentation",
) -> None:
    """Write `encode_label_map` to a file: whole, or not at all.

    Raises:
        ImageError: as `encode_label_map`.
        OSError: the file cannot be written.
    """
    data = encode_label_map(labels, like=like, scheme=scheme, description=description)
    write_atomically(path, data)


def write_nifti(path: Path, volume: Volume) -> None:
    """Write an image with its geometry, compressed if the name ends in ``.gz``.

    Whole numbers of 8, 16 or 32 bits keep their type; everything else is stored as float32.

    Raises:
        ImageError: the file cannot say the geometry.
        OSError: the file cannot be written.
    """
    array = volume.array
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iu" or array.dtype.itemsize > 4:
        array = array.astype(np.float32, copy=False)
    raw = lay_out(array, volume, description="")
    data = _deflate(raw) if path.suffix == ".gz" else raw
    write_atomically(path, data)


def _deflate(raw: bytes) -> bytes:
    """One gzip member without a name or a date."""
    compressed: bytes = igzip.compress(raw, _GZIP_LEVEL, mtime=0)
    return compressed


def _load(source: Path | bytes, argument: str, limits: ReadLimits) -> bytes:
    try:
        size = len(source) if isinstance(source, bytes) else _file_size(source)
        if size <= limits.file_bytes:
            return source if isinstance(source, bytes) else _file_bytes(source, size)
    except (OSError, ValueError) as error:
        raise refuse(
            argument,
            "a readable file",
            "none" if isinstance(error, FileNotFoundError) else "one that cannot be read",
            "Check that the file exists and may be read.",
        ) from None  # the cause carries the path
    raise refuse(
        argument,
        f"a file of at most {limits.file_bytes} bytes",
        f"{size}",
        "Compress it, or crop it to the head.",
    )


def _file_size(path: Path) -> int:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError  # a pipe or a device may never end
    return status.st_size


def _file_bytes(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(size + 1)
    if len(data) > size:
        raise OSError  # it grew meanwhile, past a limit perhaps
    return data


def _read_header(stream: ByteSource, argument: str, limits: ReadLimits) -> NiftiHeader:
    start = bytes(stream.take(HEADER_BYTES[1]))
    version = nifti_version(start)
    if version is None:
        raise _no_nifti(start, argument)
    if len(start) < HEADER_BYTES[1]:
        raise _cut_off(argument)
    block = start + bytes(stream.take(HEADER_BYTES[version] - len(start)))
    if len(block) < HEADER_BYTES[version]:
        raise _cut_off(argument)
    header = parse_header(block, version=version, argument=argument, limits=limits)
    if not stream.could_hold(header.total_bytes):
        raise _cut_off(argument)
    return header


def _no_nifti(start: bytes, argument: str) -> ImageError:
    foreign = recognise(start)
    if foreign is not None:
        got, way_out = foreign.name, foreign.way_out
    else:
        got = "something else" if start else "an empty file"
        way_out = "Convert it with dcm2niix if it is DICOM."
    return refuse(argument, "a NIfTI image (.nii or .nii.gz)", got, way_out)


def _read_values(
    stream: ByteSource, header: NiftiHeader, argument: str
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """The voxels as float32, and what is to be said about that.

    The bytes between header and voxels (extensions) are skipped as they are: whatever sizes they
    claim inside, nobody believes them.
    """
    extensions = header.offset - HEADER_BYTES[header.frame.version]
    wanted = header.total_bytes - header.offset
    raw = stream.take(wanted) if len(stream.take(extensions)) == extensions else bytearray()
    if len(raw) < wanted:
        raise _cut_off(argument)
    if not stream.at_end():
        raise refuse(
            argument,
            f"{header.total_bytes} bytes, as its header says",
            "more",
            "The file is damaged or not what it claims to be: export it again.",
        )
    stored = np.frombuffer(raw, dtype=header.dtype).reshape(header.shape, order="F")
    with np.errstate(all="ignore"):  # overflow ends as infinity, which no Volume accepts
        values = stored.astype(np.float32)
        if header.scaling is not None:
            slope, intercept = (np.float32(number) for number in header.scaling)
            values *= slope
            values += intercept
    return values, _rounding(stored)


def _rounding(stored: NDArray[Any]) -> tuple[str, ...]:
    """Say that whole numbers of 32 or 64 bits are too large for float32 to hold each of them."""
    if stored.dtype.kind not in "iu" or stored.dtype.itemsize < 4:
        return ()
    if max(-int(stored.min()), int(stored.max())) <= _EXACT_IN_FLOAT32:
        return ()
    return (f"whole numbers beyond {_EXACT_IN_FLOAT32} were rounded to 24 bits",)


def _cut_off(argument: str) -> ImageError:
    return refuse(
        argument,
        "as many bytes as its header says",
        "fewer",
        "The file was cut off: send it again.",
    )


def _version() -> str:
    try:
        return metadata.version(_PRODUCER)
    except metadata.PackageNotFoundError:
        return "unknown"
