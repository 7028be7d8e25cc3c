"""What the four images look like in numbers, to be held against images that a network knows.

Per contrast, over the voxels of the brain where it is not 0, after bringing them to mean 0 and
standard deviation 1 (as a network gets them): quantiles, fine grain (noise raises it, blur lowers
it) and shading (how much of the variance a smooth surface through the head explains), the last two
as natural logarithms, for they differ by factors. Per pair of contrasts: their correlation. Scale
and offset of an image change none of them.

Everything is computed in RAS on every n-th voxel, about 2 mm apart, so the same study gives the
same numbers in any orientation.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from model_core.imaging.grid import Grid
from model_core.imaging.orientation import turn
from model_core.imaging.study import Study
from model_core.types import CONTRASTS

QUANTILES: Final = (0.01, 0.10, 0.25, 0.50, 0.75, 0.90, 0.99, 0.999)
STEP_MM: Final = 2.0
GRAIN_SPACING_MM: Final = (0.8, 1.25)
"""Grain is compared at the spacing of the reference cases only."""
Kind = Literal["quantile", "grain", "shading", "correlation"]
_SMALLEST: Final = 1e-4
"""Before a logarithm: no image has less grain or shading."""
_FRAME: Final = "RAS"
_FEWEST: Final = 1000

_Values = NDArray[np.float64]


def appearance(study: Study) -> dict[str, float]:
    """Every number that can be told of a study, by name.

    Names are ``t1.q0.5``, ``t1.grain``, ``t1.shading`` and ``t1~t2.correlation``. A contrast with
    hardly a voxel that is not 0 has none.
    """
    grid = study.native.grid.reoriented(_FRAME)
    images = {
        contrast: turn(study.volumes[contrast].array, study.native.axcodes, _FRAME)
        for contrast in CONTRASTS
    }
    steps = tuple(max(1, round(STEP_MM / mm)) for mm in grid.spacing_mm)
    features: dict[str, float] = {}
    for contrast, image in images.items():
        found = _of_one(image, steps, with_grain=_same_spacing(grid))
        features |= {f"{contrast}.{name}": value for name, value in found.items()}
    for one, other in combinations(CONTRASTS, 2):
        value = _correlation(images[one][_every(steps)], images[other][_every(steps)])
        if value is not None:
            features[f"{one}~{other}.correlation"] = value
    return features


def subject_of(feature: str) -> str:
    """The contrast, or the pair of contrasts, that a feature is about."""
    return feature.partition(".")[0]


def kind_of(feature: str) -> Kind:
    """What a feature tells of its subject."""
    what = feature.partition(".")[2]
    named: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
    return named.get(what, "quantile")


def _same_spacing(grid: Grid) -> bool:
    least, most = GRAIN_SPACING_MM
    return least <= min(grid.spacing_mm) and max(grid.spacing_mm) <= most


def _of_one(image: NDArray[Any], steps: tuple[int, ...], *, with_grain: bool) -> dict[str, float]:
    sample = image[_every(steps)]
    where = sample != 0
    values = sample[where].astype(np.float64)
    spread = float(values.std()) if len(values) >= _FEWEST else 0.0
    if spread == 0:
        return {}
    values = (values - values.mean()) / spread
    quantiles = np.quantile(values, QUANTILES).tolist()
    found = {f"q{q:g}": value for q, value in zip(QUANTILES, quantiles, strict=True)}
    found["shading"] = _logarithm(_shading(values, np.argwhere(where)))
    if with_grain:
        found["grain"] = _logarithm(_grain(image, steps) / spread)
    return found


def _logarithm(value: float) -> float:
    return math.log(max(value, _SMALLEST))


def _every(steps: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(None, None, step) for step in steps)


def _shading(values: _Values, indices: NDArray[np.intp]) -> float:
    """Share of the variance that a quadratic surface explains."""
    centred = indices - indices.mean(axis=0)
    x, y, z = (centred / centred.std(axis=0).clip(min=1e-9)).T
    terms = np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z])
    weights, *_ = np.linalg.lstsq(terms @ terms.T, terms @ values, rcond=None)
    return float(np.var(weights @ terms) / np.var(values))


def _grain(image: NDArray[Any], steps: tuple[int, ...]) -> float:
    """Median size of the second differences along the three axes, between voxels of the brain."""
    found = []
    for axis in range(3):
        # neighbours along one axis, every n-th voxel along the others
        others = (slice(None, None, step) for at, step in enumerate(steps) if at != axis)
        rows = np.moveaxis(image, axis, 0)[(slice(None), *others)]
        before, here, after = (rows[at : len(rows) - 2 + at : steps[axis]] for at in range(3))
        inside = (before != 0) & (here != 0) & (after != 0)
        differences = before[inside] - 2 * here[inside] + after[inside]
        found.append(float(np.median(np.abs(differences))) if differences.size else 0.0)
    return float(np.mean(found))


def _correlation(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    both = (one != 0) & (other != 0)
    if np.count_nonzero(both) < _FEWEST:
        return None
    a, b = one[both].astype(np.float64), other[both].astype(np.float64)
    if a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
