"""Bytes of good DICOM files, small and of every kind that is read, for fuzzers to spoil."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from tests.dicom_series import PLANTED, SeriesRecipe, enhanced_of, geometry_affine, slices_of

SHAPE = (8, 9, 3)
IMAGE = np.random.default_rng(0).integers(0, 200, SHAPE)
AFFINE = geometry_affine(shape=SHAPE, spacing=(0.9, 1.1, 3.0), oblique=True)
RECIPE = SeriesRecipe(scaling=(2.0, -4.0), patient=PLANTED)


def as_bytes(dataset: Dataset) -> bytes:
    """The file of a data set."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@cache
def good_slices() -> tuple[bytes, ...]:
    """Three files of one slice each, which make a volume."""
    return tuple(as_bytes(dataset) for dataset in slices_of(IMAGE, AFFINE, RECIPE))


@cache
def seeds() -> dict[str, bytes]:
    """Files by the way they are stored; the last slice of the volume, or all of it."""
    found = {"explicit": good_slices()[2], "enhanced": as_bytes(enhanced_of(IMAGE, AFFINE, RECIPE))}
    for name, syntax in (("implicit", ImplicitVRLittleEndian), ("big endian", ExplicitVRBigEndian)):
        dataset = slices_of(IMAGE, AFFINE, RECIPE)[2]
        dataset.file_meta.TransferSyntaxUID = syntax
        found[name] = as_bytes(dataset)
    for name, syntax in (("RLE", RLELossless), ("JPEG-LS", JPEGLSLossless)):
        dataset = slices_of(IMAGE, AFFINE, RECIPE)[2]
        dataset.compress(syntax, generate_instance_uid=False)
        found[name] = as_bytes(dataset)
    return found
