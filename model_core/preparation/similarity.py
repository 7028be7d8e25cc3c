"""How well two images of different contrast lie on each other: normalised mutual information.

Studholme et al., An overlap invariant entropy measure of 3D medical image alignment, Pattern
Recognition 32 (1999) 71-86: (H(A) + H(B)) / H(A, B), between 1 (nothing in common) and 2 (each
tells the other). It is computed here in plain NumPy, apart from the library that registers, so that
the report's numbers are not those that were optimised.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_core.imaging.grid import Grid
from model_core.imaging.resample import resample
from model_core.imaging.volume import Volume
from model_core.preparation.grids import covering

BINS: Final = 32
_LEAST_PER_CELL: Final = 8
"""Fewer values for each cell of the histogram would look like something in common."""
LOOK_MM: Final = 3.0
"""Spacing of the lattice on which images are compared; finer voxels are averaged into it."""
_ROBUST_PERCENT: Final = (0.5, 99.5)
_FOREGROUND: Final = 0.15
"""Of the robust range of an image: above it is head, below it air."""


def robust_range(array: NDArray[Any]) -> tuple[float, float]:
    """Nearly the lowest and the highest value, so that a few odd voxels cannot rule."""
    low, high = np.percentile(array, _ROBUST_PERCENT)
    return float(low), float(high)


def foreground(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell the head, or the stripped brain, from the dark around it."""
    low, high = robust_range(array)
    mask: NDArray[np.bool_] = array > low + _FOREGROUND * (high - low)
    return mask


class Look:
    """A fixed image on a coarse lattice, with which moving images are compared.

    Args:
        fixed: the image that stays.
    """

    def __init__(self, fixed: Volume) -> None:
        spacing = max(LOOK_MM, min(fixed.spacing_mm))
        self.grid: Grid = covering(fixed.grid, (spacing, spacing, spacing))
        self._values = resample(fixed.array, fixed.grid, self.grid)
        self.head = foreground(self._values)

    def covered(self, moving: Volume) -> float:
        """Share of the fixed image's head that lies in the moving image's box, 0 to 1."""
        inside = np.isfinite(self._of(moving))
        return float(inside[self.head].mean()) if self.head.any() else 0.0

    def information(self, moving: Volume) -> float:
        """Normalised mutual information where both images are; 1 where they do not meet."""
        values = self._of(moving)
        inside = np.isfinite(values)
        return normalised_information(self._values[inside], values[inside])

    def _of(self, moving: Volume) -> NDArray[Any]:
        values = moving.array.astype(np.float32, copy=False)
        return resample(values, moving.grid, self.grid, fill=np.nan)


def normalised_information(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Normalised mutual information of paired values, by a joint histogram of `BINS`² cells."""
    if first.size < _LEAST_PER_CELL * BINS**2:
        return 1.0
    joint = np.histogram2d(_binned(first), _binned(second), bins=BINS, range=[(0, BINS)] * 2)[0]
    both = _entropy(joint.ravel())
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / both if both > 0 else 1.0


def _binned(values: NDArray[Any]) -> NDArray[np.float64]:
    low, high = robust_range(values)
    scaled: NDArray[np.float64] = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)
    return scaled * (BINS - 1e-6)


def _entropy(counts: NDArray[np.float64]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
