"""Which way the array axes point, and how to turn an array without touching a voxel value.

World frame: RAS+ millimetres (NIfTI): x grows to the patient's Right, y to Anterior, z to Superior.

An *orientation* is three letters, one per array axis, each naming the direction in which the index
grows: ``"LPS"`` means that index 0 grows to the Left, index 1 to Posterior, index 2 to Superior.
Each of the three world axes appears once, so there are 6 × 8 = 48 orientations. An oblique grid is
named after the closest one; turning it only permutes and flips axes, never interpolates.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_core.errors import OptionError
from model_core.types import Shape3

RAS_POSITIVE: Final = "RAS"
"""The letter of the positive direction of each world axis."""
RAS_NEGATIVE: Final = "LPI"
"""The letter of the negative direction of each world axis."""

Moves = tuple[tuple[int, bool], ...]
"""For each new axis: the old axis it comes from, and whether that one is flipped."""


def closest_orientation(affine: NDArray[np.float64]) -> str:
    """Name the axis-aligned orientation closest to an affine (voxel index → RAS+ mm, 4 × 4).

    The assignment of array axes to world axes with the largest sum of direction cosines is taken.
    """
    columns = affine[:3, :3]
    cosines = columns / np.linalg.norm(columns, axis=0)
    worlds = max(
        permutations(range(3)), key=lambda p: sum(abs(cosines[p[axis], axis]) for axis in range(3))
    )
    return "".join(
        (RAS_POSITIVE if cosines[world, axis] > 0 else RAS_NEGATIVE)[world]
        for axis, world in enumerate(worlds)
    )


def check_orientation(axcodes: str, argument: str = "orientation") -> None:
    """Refuse anything but one of the 48 orientations.

    Raises:
        OptionError: the letters do not name each world axis once.
    """
    if len(axcodes) != 3 or sorted(_world_axis(code) for code in axcodes) != [0, 1, 2]:
        raise OptionError(
            argument,
            expected='three letters, one of each pair L/R, P/A, I/S, for example "SPL"',
            got=repr(axcodes),
            way_out="Name the direction in which each array axis grows.",
        )


def axis_moves(current: str, wanted: str) -> Moves:
    """Tell, for each wanted axis, which current axis it comes from and whether it is flipped."""
    worlds = [_world_axis(code) for code in current]
    sources = [worlds.index(_world_axis(code)) for code in wanted]
    return tuple(
        (source, current[source] != code) for source, code in zip(sources, wanted, strict=True)
    )


def turn(array: NDArray[Any], current: str, wanted: str) -> NDArray[Any]:
    """View the last three axes of an array in another orientation; no value is copied.

    Writing into the view writes into the array, which is how an operation is undone exactly.
    """
    moves = axis_moves(current, wanted)
    lead = array.ndim - 3
    order = (*range(lead), *(lead + source for source, _ in moves))
    flips = tuple(slice(None, None, -1 if flipped else 1) for _, flipped in moves)
    return array.transpose(order)[(slice(None),) * lead + flips]


def turn_affine(affine: NDArray[np.float64], shape: Shape3, moves: Moves) -> NDArray[np.float64]:
    """Give the affine that keeps every voxel of the turned array at its place in the world."""
    turned = affine.copy()
    for axis, (source, flipped) in enumerate(moves):
        turned[:3, axis] = affine[:3, source] * (-1 if flipped else 1)
        if flipped:
            turned[:3, 3] += affine[:3, source] * (shape[source] - 1)
    return turned


def _world_axis(code: str) -> int:
    return max(RAS_POSITIVE.find(code), RAS_NEGATIVE.find(code))
