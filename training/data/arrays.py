"""Arrays on disk, compressed in blocks and mapped: a patch costs the blocks that it touches.

The files are Blosc2's (``.b2nd``). What is opened is read when it is sliced and never held; the
slice is a plain NumPy array.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model_core.errors import OptionError

_BLOCK_VOXELS: Final = 2**15
"""32³, or 181² in a slice: 64 kB of float16, about a core's share of cache."""


class CompressedArray:
    """An array in a ``.b2nd`` file; slicing it, or ``numpy.asarray``, reads and gives NumPy."""

    def __init__(self, path: Path) -> None:
        self._array: Any = _blosc2().open(
            str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1}
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the array that was written."""
        return tuple(int(size) for size in self._array.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As of the array that was written."""
        kind: np.dtype[Any] = np.dtype(self._array.dtype)
        return kind

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        parts = key if isinstance(key, tuple) else (key,)
        if all(isinstance(part, slice) and part.step in (None, 1) for part in parts):
            return np.asarray(self._array[key])
        whole: npt.NDArray[Any] = np.asarray(self)[key]
        return whole

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a compressed array cannot be given without a copy")
        return np.asarray(self._array[:], dtype=dtype)

    def astype(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The whole array in another type."""
        return self.__array__(dtype)


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array whose last three axes are space; `path` must not exist.

    LZ4 unpacks twice as fast as Zstandard here, and a case is written once and read for days: the
    sixth more that it takes on disk is well spent.
    """
    blosc2 = _blosc2()
    space = array.shape[-3:]
    lead = (1,) * (array.ndim - 3)
    blosc2.asarray(
        np.ascontiguousarray(array),
        urlpath=str(path),
        mode="w",
        chunks=(*lead, *space),
        blocks=(*lead, *_block(space)),
        cparams={"codec": blosc2.Codec.LZ4HC, "clevel": 5, "nthreads": 1},
    )


def _blosc2() -> Any:
    """The library, which ships no types and comes with the training extra only."""
    try:
        return importlib.import_module("blosc2")
    except ImportError as error:
        raise OptionError(
            "cache",
            expected="the package blosc2, which keeps prepared cases",
            got="none",
            way_out="Install what training needs: pip install 'segmamba-service[train]'.",
        ) from error


def _block(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of a block: a cube of `_BLOCK_VOXELS`, wider where an axis is shorter than its side."""
    block: dict[int, int] = {}
    left = float(_BLOCK_VOXELS)
    for done, axis in enumerate(sorted(range(3), key=lambda axis: shape[axis])):
        side = min(shape[axis], max(1, int(left ** (1 / (3 - done)))))
        block[axis] = side
        left /= side
    return tuple(block[axis] for axis in range(3))
