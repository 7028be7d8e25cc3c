"""A head with a face, made of ellipsoids whose places are known in mm, for tests of defacing.

World frame: RAS+ mm, as for a patient who lies straight. The brain has a frontal lobe over the
orbits, temporal lobes and a hindbrain lower and farther back, so its outline has the edge over the
orbits that real ones have.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_core.imaging.grid import Grid
from model_core.types import Shape3

AIR, SKIN, BRAIN, EYE, NOSE = range(5)
VALUES: Final = np.array((0, 300, 900, 1500, 700))
"""What each of them looks like in an image."""
CENTRE_MM: Final = (3.0, -11.0, 7.5)
"""Where the middle of the skull lies; that of `geometry_affine` too."""

_Ellipsoid = tuple[tuple[float, float, float], tuple[float, float, float]]
_SKULL: Final[_Ellipsoid] = ((0, 0, 15), (80, 98, 85))
_JAW: Final[_Ellipsoid] = ((0, 40, -50), (55, 55, 60))
_NECK: Final[_Ellipsoid] = ((0, -25, -80), (55, 60, 90))
_NOSE: Final[_Ellipsoid] = ((0, 97, -35), (12, 18, 22))
_EYES: Final[tuple[_Ellipsoid, ...]] = (((-32, 82, -28), (12,) * 3), ((32, 82, -28), (12,) * 3))
_BRAIN: Final[tuple[_Ellipsoid, ...]] = (
    ((0, 0, 30), (68, 84, 58)),
    ((-40, 15, -12), (24, 32, 24)),
    ((40, 15, -12), (24, 32, 24)),
    ((0, -50, -25), (48, 32, 30)),
)


def _at(*relative: float) -> tuple[float, float, float]:
    x, y, z = (a + b for a, b in zip(relative, CENTRE_MM, strict=True))
    return x, y, z


NOSE_MM: Final = _at(*_NOSE[0])
EYES_MM: Final = tuple(_at(*centre) for centre, _ in _EYES)
CHIN_MM: Final = _at(0, 85, -85)
FOREHEAD_MM: Final = _at(0, 88, 45)
OCCIPUT_MM: Final = _at(0, -90, 0)
NECK_MM: Final = _at(0, 0, -100)
LEFT_OF_NOSE_MM: Final = _at(-12, 90, -35)


def nodded(points: NDArray[np.float64], nod_deg: float) -> NDArray[np.float64]:
    """Points (…, 3) of the head after a nod about its centre; positive lifts the chin."""
    angle = np.radians(nod_deg)
    turn = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    return (points - CENTRE_MM) @ turn.T + CENTRE_MM


def points_of(grid: Grid) -> NDArray[np.float64]:
    """Every voxel's centre, (X, Y, Z, 3), RAS+ mm."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    points: NDArray[np.float64] = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return points


def head_labels(grid: Grid, *, nod_deg: float = 0.0) -> NDArray[np.uint8]:
    """The head on a grid: `AIR`, `SKIN`, `BRAIN`, `EYE` or `NOSE` for each voxel."""
    return _labels(grid.shape, grid.affine.tobytes(), nod_deg).copy()


@cache
def _labels(shape: Shape3, affine: bytes, nod_deg: float) -> NDArray[np.uint8]:
    grid = Grid(shape, np.frombuffer(affine).reshape(4, 4))
    points = nodded(points_of(grid), -nod_deg) - CENTRE_MM
    labels = np.zeros(shape, np.uint8)
    for label, parts in (
        (SKIN, (_SKULL, _JAW, _NECK)),
        (NOSE, (_NOSE,)),
        (EYE, _EYES),
        (BRAIN, _BRAIN),
    ):
        for centre, radii in parts:
            labels[(((points - centre) / radii) ** 2).sum(axis=-1) < 1] = label
    return labels
