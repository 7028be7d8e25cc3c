"""Images beside a label map: their values, on its grid, and nothing else of their headers."""

from __future__ import annotations

import gzip
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from model_core.imaging.grid import Grid
from model_core.imaging.nifti import read_nifti
from model_core.imaging.study import make_study
from model_core.imaging.volume import NiftiFrame, Volume
from model_core.pipeline.image_files import carried, encode_image, on_label_map
from model_core.preparation.prepared import as_it_is
from model_core.preparation.rigid import moved
from model_core.types import CONTRASTS, Contrast
from tests.model_core.preparation.builders import heads, movement

AFFINE = np.diag([-1.5, -1.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def volumes() -> dict[Contrast, Volume]:
    return heads(skull=False)


def test_whole_numbers_come_back_as_they_were() -> None:
    values = np.arange(-360, 360, dtype=np.float32).reshape(8, 9, 10) * 90
    like = Volume(values, AFFINE)
    data = encode_image(values, like)
    found = read_nifti(data, argument="t1")
    np.testing.assert_array_equal(found.array, values)
    np.testing.assert_array_equal(found.affine, AFFINE)
    stored = nib.Nifti1Image.from_bytes(gzip.decompress(data))
    assert stored.header.get_data_dtype() == np.int16
    assert (stored.dataobj.slope, stored.dataobj.inter) == (1.0, 0.0)


@pytest.mark.parametrize("version", [1, 2])
def test_other_numbers_keep_fifteen_bits_and_zero_stays_zero(version: int) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 3, (8, 9, 10)).astype(np.float32)
    values[:2] = 0
    like = Volume(values, AFFINE, NiftiFrame(version=version))
    data = encode_image(values, like)
    found = read_nifti(data, argument="t1")
    assert found.header is not None
    assert found.header.version == version
    step = np.abs(values).max() / 32767
    np.testing.assert_allclose(found.array, values, atol=0.51 * step, rtol=0)
    assert not found.array[:2].any()
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    other_reader = kind.from_bytes(gzip.decompress(data))
    np.testing.assert_allclose(other_reader.get_fdata(), values, atol=0.51 * step, rtol=0)
    for field in ("descrip", "aux_file", "intent_name"):
        assert bytes(other_reader.header[field].tobytes()).strip(b"\0") == b""


def test_an_image_of_zeros_can_be_written() -> None:
    values = np.zeros((8, 8, 8), np.float32)
    assert not read_nifti(encode_image(values, Volume(values, AFFINE)), argument="t1").array.any()


def test_where_nothing_was_moved_the_images_are_the_studys_own(
    volumes: dict[Contrast, Volume],
) -> None:
    prepared = as_it_is(make_study(volumes))
    found = on_label_map(prepared, CONTRASTS)
    for contrast in CONTRASTS:
        np.testing.assert_array_equal(found[contrast].array, volumes[contrast].array)


def test_where_the_label_map_lies_elsewhere_the_images_go_there(
    volumes: dict[Contrast, Volume],
) -> None:
    """The study stands where t1ce is; the label map is wanted where flair was scanned."""
    matrix = movement((0, 0, 0), (7.0, -3.5, 3.5))  # whole voxels, two, one and one
    scanned = moved(volumes["flair"], np.linalg.inv(matrix))
    coarse = Grid((27, 31, 25), scanned.affine @ np.diag([2.0, 2.0, 2.0, 1.0]))
    for grid in (scanned.grid, coarse):
        native = Volume(np.zeros(grid.shape, np.float32), grid.affine)
        prepared = replace(
            as_it_is(make_study(volumes)), native=native, onto_fixed=matrix.astype(np.float64)
        )
        found = on_label_map(prepared, ("t1ce",))["t1ce"]
        assert found.grid.matches(grid)
    same = replace(prepared, native=scanned)
    np.testing.assert_allclose(
        carried(same, volumes["t1ce"].array), volumes["t1ce"].array, atol=1e-3
    )
