from __future__ import annotations

import io
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_core.imaging.foreign import recognise
from tests.model_core.imaging.builders import nifti_bytes, random_image


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("image.nii", b"anything")
    return target.getvalue()


def tarred() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("image.nii"))
    return target.getvalue()


def picture(kind: str) -> bytes:
    target = io.BytesIO()
    Image.new("L", (8, 8)).save(target, kind)
    return target.getvalue()


def saved(array: Any) -> bytes:
    target = io.BytesIO()
    np.save(target, array)
    return target.getvalue()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (zipped(), "a zip archive"),
        (tarred(), "a tar archive"),
        (picture("PNG"), "a PNG picture"),
        (picture("JPEG"), "a JPEG picture"),
        (picture("TIFF"), "a TIFF picture"),
        (saved(np.zeros(3)), "a NumPy file"),
        *((pickle.dumps([1, 2], protocol), "a Python pickle") for protocol in range(2, 6)),
        (Path(sys.executable).read_bytes()[:348], "a program"),
        (b"MZ".ljust(128, b"\0") + b"DICM", "a program"),
        (bytes(128) + b"DICM", "a DICOM file"),
        (b"#!/bin/sh\n", "a script"),
        (b"<!DOCTYPE html>", "a web page or a text document"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer instead of the file"),
    ],
)
def test_real_files_of_other_kinds_are_called_by_their_names(data: bytes, name: str) -> None:
    found = recognise(data[:348])
    assert found is not None
    assert found.name == name
    assert found.way_out.endswith(".")


@pytest.mark.parametrize("data", [b"", b"\0", b"no idea", bytes(348)])
def test_the_unknown_stays_unknown(data: bytes) -> None:
    assert recognise(data) is None


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("endianness", "<>")
def test_no_image_is_taken_for_something_else(version: int, endianness: str) -> None:
    data = nifti_bytes(random_image(), version=version, endianness=endianness, compress=False)
    assert recognise(data[:348]) is None
