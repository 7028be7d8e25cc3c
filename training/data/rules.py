"""The rules of planning, as pure functions: spacing, first patch, shrinking, batch.

They are nnU-Net's (Isensee et al., Nature Methods 2021, and its version 2 planner), with two
differences: the networks are fixed, so that axes are multiples of their stride instead of the
network following the patch; and memory is estimated for those networks.

Axes: those of the plan's orientation. For a 2-D network the first axis counts slices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np

from model_core.types import Shape3, Spacing

ANISOTROPY: Final = 3.0
"""An axis is coarse if its spacing is more than this many times that of the others, and its extent
in voxels less than one such part of theirs."""
COARSE_PERCENTILE: Final = 10.0
FIRST_PATCH: Final = {3: 256.0**3, 2: 2048.0**2}
"""Voxels of the patch from which shrinking begins."""
SMALLEST_BATCH: Final = 2
LARGEST_SHARE: Final = 0.05
"""Of the data set's voxels in one batch: more would be much the same batch each time."""
THICK: Final = 1.1
"""Slices are cut along an axis whose spacing exceeds the others' by this factor."""

Fits = Callable[[Shape3, int], bool]
"""Whether a patch and a batch fit into memory."""


def slice_axis(spacing_mm: Spacing) -> int:
    """The axis along which a volume was acquired in slices; the first one if none stands out."""
    worst = int(np.argmax(spacing_mm))
    others = [mm for axis, mm in enumerate(spacing_mm) if axis != worst]
    return worst if spacing_mm[worst] > THICK * max(others) else 0


def target_spacing(shapes: Sequence[Shape3], spacings_mm: Sequence[Spacing]) -> tuple[Spacing, str]:
    """The spacing to train at, and why.

    The median along each axis; along a coarse axis the 10th percentile, yet not finer than the
    other axes, so that thick slices are not all blurred to the thickness of most.
    """
    spacings = np.asarray(spacings_mm, dtype=np.float64)
    target = np.median(spacings, axis=0)
    reason = "the median of the data set along each axis"
    worst = int(target.argmax())
    others = [axis for axis in range(3) if axis != worst]
    size = np.median(resampled_shapes(shapes, spacings_mm, _spacing(target)), axis=0)
    coarse = target[worst] > ANISOTROPY * target[others].max()
    if coarse and size[worst] * ANISOTROPY < size[others].min():
        tenth = float(np.percentile(spacings[:, worst], COARSE_PERCENTILE))
        target[worst] = max(tenth, target[others].max())
        reason += f"; along axis {worst}, which is coarse, the 10th percentile"
    return _spacing(target), reason


def resampled_shapes(
    shapes: Sequence[Shape3], spacings_mm: Sequence[Spacing], target: Spacing
) -> list[Shape3]:
    """The shapes of images brought to the target spacing."""
    return [
        _shape(n * mm / wanted for n, mm, wanted in zip(shape, spacing, target, strict=True))
        for shape, spacing in zip(shapes, spacings_mm, strict=True)
    ]


def first_patch(
    median: Shape3, spacing_mm: Spacing, *, multiple: int, dims: Literal[2, 3]
) -> Shape3:
    """A patch with equal sides in mm, no larger than the median image, in whole multiples."""
    seen = range(3 - dims, 3)
    fine = math.prod(1 / spacing_mm[axis] for axis in seen)
    side = (FIRST_PATCH[dims] / fine) ** (1 / dims)
    wanted = [min(median[axis], round(side / spacing_mm[axis])) for axis in seen]
    return _patch([multiple * math.ceil(size / multiple) for size in wanted])


def shrink(
    patch: Shape3, median: Shape3, fits: Fits, *, multiple: int, dims: Literal[2, 3]
) -> Shape3 | None:
    """The patch with the axis that covers most of the image cut until a batch of two fits.

    No axis gets shorter than two multiples unless it was: the network's deepest features need
    neighbours. None: even the smallest does not fit.
    """
    sizes = list(patch[3 - dims :])
    seen = median[3 - dims :]
    while not fits(_patch(sizes), SMALLEST_BATCH):
        longer = [axis for axis, size in enumerate(sizes) if size > 2 * multiple]
        if not longer:
            return None
        # of equal covers the last: it costs the slices least
        cut = max(longer, key=lambda axis: (sizes[axis] / seen[axis], axis))
        sizes[cut] -= multiple
    return _patch(sizes)


def largest_batch(patch: Shape3, voxels: float, fits: Fits) -> tuple[int, str]:
    """How many patches a micro-batch may have, and why.

    Args:
        patch: voxels of one.
        voxels: of the whole data set at the plan's spacing.
        fits: whether a patch and a batch fit into memory.
    """
    share = max(SMALLEST_BATCH, int(voxels * LARGEST_SHARE / math.prod(patch)))
    batch = SMALLEST_BATCH
    while batch < share and fits(patch, batch + 1):
        batch += 1
    if batch == share:
        if share == SMALLEST_BATCH:
            return batch, f"the smallest; two patches hold {LARGEST_SHARE:.0%} of all voxels"
        return batch, f"as many as hold {LARGEST_SHARE:.0%} of all voxels"
    if batch == SMALLEST_BATCH:
        return batch, "the smallest; memory goes into the patch first"
    return batch, "as many as fit into memory"


def _patch(sizes: Sequence[int]) -> Shape3:
    x, y, z = (1,) * (3 - len(sizes)) + tuple(sizes)
    return x, y, z


def _spacing(values: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> Spacing:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _shape(values: object) -> Shape3:
    x, y, z = (max(1, round(value)) for value in values)  # type: ignore[attr-defined]
    return x, y, z
