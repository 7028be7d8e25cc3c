"""Moving an array from one grid to another, through the world.

Both grids are in RAS+ millimetres, so rotation, spacing and origin are all taken from the affines.
Three rules keep the values honest:

* an image that is made coarser is first smoothed along each axis (σ = (factor − 1) / 2 source
  voxels), otherwise fine detail would turn into false structure;
* a target voxel whose centre lies outside the imaged box (half a voxel beyond the outermost voxel
  centres) gets ``fill``; inside, the outermost values are continued, never mixed with ``fill``;
* a constant stays that constant, to rounding.

Linear interpolation (order 1) is what this project uses for images and scores: it never overshoots,
so zeros around a stripped brain stay zeros. Labels use order 0 (the nearest voxel).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_core.imaging.grid import Grid
from model_core.types import Shape3

NEAREST: Final = 0
LINEAR: Final = 1
CUBIC: Final = 3
_INDEX_DECIMALS: Final = 9
"""Index maps are rounded here, so that equal grids told in other words give equal voxels."""
_SMALLEST_SIGMA: Final = 0.01


def resample(
    array: NDArray[Any], source: Grid, target: Grid, *, order: int = LINEAR, fill: float = 0.0
) -> NDArray[Any]:
    """Sample ``array``, which lives on ``source``, at the voxel centres of ``target``.

    Args:
        array: (X, Y, Z) of ``source.shape``.
        source: where the array lives.
        target: where it is wanted.
        order: 0 nearest (keeps the type), 1 linear, 3 cubic spline (may overshoot).
        fill: the value outside the source.

    Returns:
        (X, Y, Z) of ``target.shape``: the input's type for order 0, else float32.
    """
    if source.shape == target.shape and np.array_equal(source.affine, target.affine):
        return array.copy()
    to_index = np.linalg.solve(source.affine, target.affine).astype(np.float64)
    to_index = to_index.round(_INDEX_DECIMALS)
    matrix, offset = to_index[:3, :3], to_index[:3, 3]
    sampled = _sample(array, matrix, offset, target.shape, order)
    _fill_outside(sampled, matrix, offset, source.shape, fill)
    return sampled


def scale(
    array: NDArray[Any],
    shape: Shape3,
    *,
    step: Any,
    order: int = LINEAR,
    rows: slice | None = None,
) -> NDArray[Any]:
    """Sample an array on a grid with the same centre and axes and another spacing.

    Args:
        array: (X, Y, Z).
        shape: voxels of the result.
        step: per axis, the new spacing in old voxels.
        order: as for `resample`.
        rows: only these of the result's first axis; None gives all.

    Returns:
        (X, Y, Z) of ``shape``; beyond the outermost voxel centres their values are continued.
    """
    steps = np.asarray(step, dtype=np.float64)
    offset = centre_offset(array.shape, shape, steps)
    if rows is not None:
        offset[0] += rows.start * steps[0]
        shape = (rows.stop - rows.start, *shape[1:])
    return _sample(array, np.diag(steps), offset, shape, order)


def centre_offset(
    old: tuple[int, ...], new: tuple[int, ...], steps: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give the old index of new voxel 0 when both lattices share their centre."""
    return ((np.asarray(old) - 1) - (np.asarray(new) - 1) * steps) / 2


def _sample(
    array: NDArray[Any],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: Shape3,
    order: int,
) -> NDArray[Any]:
    values = array if order == NEAREST else _smooth(array.astype(np.float32, copy=False), matrix)
    separable = np.array_equal(matrix, np.diag(np.diag(matrix)))
    sampled: NDArray[Any] = ndimage.affine_transform(
        values,
        np.diag(matrix) if separable else matrix,  # a diagonal takes SciPy's far faster path
        offset,
        output_shape=shape,
        output=values.dtype,
        order=order,
        mode="nearest",
    )
    return sampled


def _smooth(array: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Remove detail finer than the new voxels; one σ per source axis, 0 where nothing shrinks."""
    factor = np.linalg.norm(matrix, axis=1)
    sigma = np.maximum(0.0, (factor - 1) / 2)
    if sigma.max() < _SMALLEST_SIGMA:
        return array
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(array, sigma, mode="nearest")
    return smooth


def _fill_outside(
    sampled: NDArray[Any],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    source_shape: Shape3,
    fill: float,
) -> None:
    """Overwrite, in place, every voxel whose centre lies outside the source's imaged box."""
    i, j, k = np.ogrid[tuple(slice(0, size) for size in sampled.shape)]
    for axis, size in enumerate(source_shape):
        index = matrix[axis, 0] * i + matrix[axis, 1] * j + (matrix[axis, 2] * k + offset[axis])
        sampled[(index < -0.5) | (index > size - 0.5)] = fill
