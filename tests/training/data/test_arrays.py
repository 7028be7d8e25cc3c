"""A compressed array gives back what was written, slice by slice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_core.errors import OptionError
from training.data.arrays import CompressedArray, write_array


@pytest.mark.parametrize("shape", [(2, 40, 37, 33), (20, 30, 10), (1, 1, 300, 280), (3, 1, 1, 1)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
def test_what_is_written_is_read(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    array = (np.random.default_rng(0).normal(size=shape) * 50).clip(0, 200).astype(dtype)
    write_array(tmp_path / "x.b2nd", array)
    back = CompressedArray(tmp_path / "x.b2nd")
    assert (back.shape, back.dtype, back.ndim, len(back)) == (shape, dtype, len(shape), shape[0])
    np.testing.assert_array_equal(np.asarray(back), array)
    np.testing.assert_array_equal(back.astype(np.float64), array.astype(np.float64))


def test_slices_are_numpy_arrays_and_any_index_works(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(2, 40, 37, 33)).astype(np.float16)
    write_array(tmp_path / "x.b2nd", array)
    back = CompressedArray(tmp_path / "x.b2nd")
    keys: list[Any] = [
        (slice(None), slice(3, 20), slice(0, 5), slice(30, 33)),
        (slice(None), slice(7, 7), slice(None), slice(None)),
        1,
        None,
        (0, ..., 3),
        (slice(None), slice(None, None, 2)),
        (np.array([0, 1]), np.array([3, 4])),
        back.__array__() > 0,
    ]
    for key in keys:
        part = back[key]
        assert type(part) is np.ndarray
        np.testing.assert_array_equal(part, array[key])


def test_what_is_sliced_may_be_changed_without_changing_the_file(tmp_path: Path) -> None:
    write_array(tmp_path / "x.b2nd", np.zeros((4, 4, 4), np.uint8))
    part = CompressedArray(tmp_path / "x.b2nd")[0:2]
    part += 1
    assert np.asarray(CompressedArray(tmp_path / "x.b2nd")).sum() == 0


def test_a_brain_takes_less_room_compressed(tmp_path: Path) -> None:
    array = np.zeros((1, 64, 64, 64), np.float16)
    array[:, 16:48, 16:48, 16:48] = np.random.default_rng(0).normal(size=(32, 32, 32))
    write_array(tmp_path / "x.b2nd", array)
    assert (tmp_path / "x.b2nd").stat().st_size < array.nbytes / 4


def test_without_the_library_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "blosc2", None)
    with pytest.raises(OptionError, match=r"segmamba-service\[train\]"):
        write_array(tmp_path / "x.b2nd", np.zeros((2, 2, 2), np.uint8))
