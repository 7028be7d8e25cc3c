"""Whether the images look like what they are called: a second opinion that may contradict.

Four images of one brain fit together in one way only. The two T1 go bright and dark together, and
so do T2 and FLAIR, less strictly; across these pairs they do not. Where T1 is darkest lies fluid,
which T2 shows bright and FLAIR dark. And contrast agent only adds: where the enhanced T1 differs
much from the native one, it is brighter.

`suspect` measures these three, once for the names as they are and once for every exchange of two
names, and tells when an exchange fits clearly better. It knows nothing of the files' names or tags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from model_core.imaging.grid import Grid
from model_core.imaging.resample import resample
from model_core.imaging.skull import has_zero_background
from model_core.imaging.volume import Volume
from model_core.types import CONTRASTS, Contrast, Spacing

MARGIN: Final = 0.08
"""By how much an exchange must fit better before it is told; see docs/concepts/recognition.md."""
SAME_CORRELATION: Final = 0.9995
"""Two images that agree so closely are one image, scaled or resampled perhaps."""
_COARSE_MM: Final = 3.0
_FOREGROUND: Final = 0.02
"""Of the 99th percentile: below it is background or noise."""
_SKIN_MM: Final = 6.0
_SKULL_MM: Final = 25.0
"""How deep the brain's inside begins, in a stripped image and below scalp and skull."""
_FEWEST_VOXELS: Final = 500
_DARKEST: Final = 0.05
_TAIL_PERCENT: Final = 0.5
_WEIGHTS: Final = (1.0, 1.0, 0.5)
"""Of pairing, fluid and enhancement in the sum that the exchanges are compared by."""
_NAMES: Final[Mapping[Contrast, str]] = {"t1": "T1", "t1ce": "T1ce", "t2": "T2", "flair": "FLAIR"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What the images say.

    Attributes:
        suspicions: sentences for people; empty where nothing contradicts.
        looked: whether the images could be compared: four of them, of one place.
        fit: how well the names fit the images; the higher the better.
        best: how well the best naming fits; equal to ``fit`` where that is the given one.
    """

    suspicions: tuple[str, ...]
    looked: bool
    fit: float = 0.0
    best: float = 0.0


def suspect(volumes: Mapping[Contrast, Volume]) -> Picture:
    """Look for images that are called by each other's names, or are the same.

    Args:
        volumes: images of one head, on any grids of one world; exchanges are looked for only among
            all four.

    Returns:
        What was found. Where the images do not overlap, nothing can be said.
    """
    images, spacing = _side_by_side(volumes)
    inside = _inside(images, spacing)
    if np.count_nonzero(inside) < _FEWEST_VOXELS:
        return Picture(suspicions=(), looked=False)
    ranks = {contrast: _ranks(image[inside]) for contrast, image in images.items()}
    same = _same(ranks)
    if same or len(ranks) < len(CONTRASTS):
        return Picture(suspicions=same, looked=len(ranks) == len(CONTRASTS))
    scaled = {contrast: _scaled(image[inside]) for contrast, image in images.items()}
    return _exchanged(ranks, scaled)


def _exchanged(
    ranks: Mapping[Contrast, NDArray[np.float64]], scaled: Mapping[Contrast, NDArray[np.float64]]
) -> Picture:
    given = fit_of(ranks, scaled)
    best, pair = max(
        (fit_of(_swapped(ranks, pair), _swapped(scaled, pair)), pair)
        for pair in combinations(CONTRASTS, 2)
    )
    if best < given + MARGIN:
        return Picture(suspicions=(), looked=True, fit=given, best=max(best, given))
    names = f"{_NAMES[pair[0]]} and {_NAMES[pair[1]]}"
    text = f"{names} look as if they were exchanged"
    return Picture(suspicions=(text,), looked=True, fit=given, best=best)


def _swapped(
    of: Mapping[Contrast, NDArray[np.float64]], pair: tuple[Contrast, Contrast]
) -> dict[Contrast, NDArray[np.float64]]:
    first, second = pair
    return {**of, first: of[second], second: of[first]}


def fit_of(
    ranks: Mapping[Contrast, NDArray[np.float64]], scaled: Mapping[Contrast, NDArray[np.float64]]
) -> float:
    """Say how well four images fit their names, in one number.

    Args:
        ranks: per contrast the ranks of its values inside the brain, 0 to 1.
        scaled: the values themselves, with median 0 and quartiles 1 apart.
    """
    measured = (pairing(ranks), fluid(ranks), enhancement(scaled))
    return sum(weight * value for weight, value in zip(_WEIGHTS, measured, strict=True))


def pairing(ranks: Mapping[Contrast, NDArray[np.float64]]) -> float:
    """Rank correlation within the pairs (T1, T1ce) and (T2, FLAIR), together."""
    return _correlation(ranks["t1"], ranks["t1ce"]) + _correlation(ranks["t2"], ranks["flair"])


def fluid(ranks: Mapping[Contrast, NDArray[np.float64]]) -> float:
    """By how much T2 is brighter than FLAIR where the two T1 together are darkest."""
    both = ranks["t1"] + ranks["t1ce"]
    dark = both <= np.quantile(both, _DARKEST)
    return float(ranks["t2"][dark].mean() - ranks["flair"][dark].mean())


def enhancement(scaled: Mapping[Contrast, NDArray[np.float64]]) -> float:
    """How lopsided the difference of T1ce and T1 is: 1 only brighter, 0 even, -1 only darker."""
    difference = scaled["t1ce"] - scaled["t1"]
    low, middle, high = np.percentile(difference, (_TAIL_PERCENT, 50, 100 - _TAIL_PERCENT))
    spread = high - low
    return float((high + low - 2 * middle) / spread) if spread > 0 else 0.0


def _same(ranks: Mapping[Contrast, NDArray[np.float64]]) -> tuple[str, ...]:
    return tuple(
        f"{_NAMES[first]} and {_NAMES[second]} are the same image"
        for first, second in combinations(ranks, 2)
        if _correlation(ranks[first], ranks[second]) > SAME_CORRELATION
    )


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    spread = first.std() * second.std()
    if spread == 0:
        return 0.0
    return float(np.mean((first - first.mean()) * (second - second.mean())) / spread)


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    ranks: NDArray[np.float64] = stats.rankdata(values) / values.size
    return ranks


def _scaled(values: NDArray[Any]) -> NDArray[np.float64]:
    low, middle, high = np.percentile(values, (25, 50, 75))
    scaled: NDArray[np.float64] = (values - middle) / max(high - low, np.finfo(np.float32).tiny)
    return scaled.astype(np.float64)


def _side_by_side(
    volumes: Mapping[Contrast, Volume],
) -> tuple[dict[Contrast, NDArray[Any]], Spacing]:
    """All images on one coarse grid, that of the first, so that voxels can be compared."""
    turned = {c: volumes[c].reoriented("RAS") for c in CONTRASTS if c in volumes}
    target = _coarse_grid(next(iter(turned.values())).grid)
    images = {
        contrast: resample(volume.array, volume.grid, target) for contrast, volume in turned.items()
    }
    return images, target.spacing_mm


def _coarse_grid(grid: Grid) -> Grid:
    """The same box in voxels of `_COARSE_MM`, never finer than the source."""
    spacing: Spacing = grid.spacing_mm
    steps = np.array([max(1.0, _COARSE_MM / mm) for mm in spacing])
    affine = grid.affine.copy()
    affine[:3, :3] = affine[:3, :3] * steps
    x, y, z = (max(1, int(size / step)) for size, step in zip(grid.shape, steps, strict=True))
    return Grid((x, y, z), affine)


def _inside(images: Mapping[Contrast, NDArray[Any]], spacing: Spacing) -> NDArray[np.bool_]:
    """The brain without its surface, or the head without scalp and skull."""
    shown: NDArray[np.bool_] = np.logical_and.reduce(
        [image > _FOREGROUND * np.percentile(image, 99) for image in images.values()]
    )
    labels, count = ndimage.label(ndimage.binary_fill_holes(shown))
    if count == 0:
        return shown
    object_ = labels == int(np.bincount(labels.ravel())[1:].argmax()) + 1
    bare = has_zero_background(np.stack(list(images.values())))
    depth = _SKIN_MM if bare else _SKULL_MM
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(
        np.pad(object_, 1), sampling=spacing
    )
    return distance[1:-1, 1:-1, 1:-1] > depth
