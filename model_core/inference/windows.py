"""Where the windows lie: pure integers, no tensors.

Glossary: a *window* is the box of voxels that the network sees at once; *overlap* is the fraction
of a window shared with its neighbour along one axis; the *step* is the distance between the
starts of two neighbours. The placement rule is that of MONAI's ``sliding_window_inference``: equal
steps from the first voxel, and a last window moved back so that it ends with the image; or that of
nnU-Net, which makes the steps a little shorter instead, so that all are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil
from typing import Final, Literal, get_args

from model_core.errors import OptionError

Blend = Literal["gaussian", "constant"]
"""``gaussian``: a window counts most at its centre, which hides seams and is the default.
``constant``: every voxel of a window counts the same."""
BLENDS: Final[tuple[Blend, ...]] = get_args(Blend)

Tiling = Literal["monai", "nnunet"]
"""Whose rule places the windows and, where they are blended by a Gaussian, weighs their voxels."""
TILINGS: Final[tuple[Tiling, ...]] = get_args(Tiling)

Window = tuple[slice, ...]
"""One slice per spatial axis, with explicit start and stop."""


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """How to walk an image; valid once it exists.

    Attributes:
        window: voxels of a window along each spatial axis.
        overlap: in [0, 1); 0.5 means that neighbours share half of their voxels.
        batch: windows handed to the network at once; it changes speed and memory, not the result.
        blend: how overlapping windows are weighed.
        tiling: whose rule places and weighs them.

    Raises:
        OptionError: for a value outside these ranges.
    """

    window: tuple[int, ...]
    overlap: float = 0.5
    batch: int = 1
    blend: Blend = "gaussian"
    tiling: Tiling = "monai"

    def __post_init__(self) -> None:
        if not self.window or min(self.window) < 1:
            raise _refused("window", "positive voxel counts", self.window)
        if not 0.0 <= self.overlap < 1.0:
            raise _refused("overlap", "a fraction of at least 0 and below 1", self.overlap)
        if self.batch < 1:
            raise _refused("batch", "at least 1", self.batch)
        if self.blend not in BLENDS:
            raise _refused("blend", f"one of {', '.join(BLENDS)}", self.blend)
        if self.tiling not in TILINGS:
            raise _refused("tiling", f"one of {', '.join(TILINGS)}", self.tiling)

    def rounded_up(self, multiple: int | Sequence[int]) -> WindowPlan:
        """The same plan with each window side raised to the next multiple of `multiple`.

        A network that halves its input four times takes only multiples of 16. A larger window
        shows it more of the image; padding each window instead would show it zeros.
        """
        sides = _per_axis(multiple, len(self.window))
        return replace(
            self,
            window=tuple(-(-w // m) * m for w, m in zip(self.window, sides, strict=True)),
        )


def window_starts(
    size: int, window: int, overlap: float, tiling: Tiling = "monai"
) -> tuple[int, ...]:
    """First voxels of the windows along one axis of `size` voxels.

    Args:
        size: voxels along the axis.
        window: voxels of the window, at most `size`.
        overlap: fraction of a window shared with the next, in [0, 1).
        tiling: ``monai``: full steps, the last one shorter; ``nnunet``: as many, equal ones.

    Returns:
        Increasing starts; every voxel lies in at least one window, the last one ends at `size`.
    """
    assert 1 <= window <= size, "pad the image before planning"
    if window == size:
        return (0,)
    last = size - window
    if tiling == "nnunet":
        steps = ceil(last / (window * (1 - overlap)))
        return tuple(round(last / steps * i) for i in range(steps + 1))
    step = max(int(window * (1 - overlap)), 1)
    return (*range(0, last, step), last)


def plan_windows(
    shape: Sequence[int], window: Sequence[int], overlap: float, tiling: Tiling = "monai"
) -> tuple[Window, ...]:
    """All windows of an image of `shape`, the last axis running fastest.

    A side of `window` that exceeds the image is cut to the image; `sliding_window` pads the image
    beforehand, so that its windows are always whole.
    """
    sides = [min(w, s) for w, s in zip(window, shape, strict=True)]
    starts = [window_starts(s, w, overlap, tiling) for s, w in zip(shape, sides, strict=True)]
    return tuple(
        tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))
        for corner in product(*starts)
    )


def padding_to(shape: Sequence[int], window: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Voxels to add (before, after) along each axis so that one window fits.

    The image stays in the middle; of an odd number, the extra voxel goes behind.
    """
    missing = [max(w - s, 0) for s, w in zip(shape, window, strict=True)]
    return tuple((m // 2, m - m // 2) for m in missing)


def _per_axis(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _refused(argument: str, expected: str, got: object) -> OptionError:
    return OptionError(
        argument,
        expected=expected,
        got=repr(got),
        way_out="Correct the model card or the option that sets it.",
    )
