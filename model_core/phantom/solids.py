"""Implicit solids: the smooth shapes that anatomy is put together from.

Coordinates are head millimetres, see `model_core.phantom.frame`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from model_core.phantom.frame import BoolArray, FloatArray

Coordinates = tuple[FloatArray, FloatArray, FloatArray]
"""Head x, y, z of every voxel; broadcastable to the box."""


def ellipsoid(
    at: Coordinates, centre: Sequence[float], semi: Sequence[float], *, power: float = 2.0
) -> FloatArray:
    """A superellipsoid's level: below 1 inside, 1 on the surface."""
    total = np.zeros((1, 1, 1), np.float32)
    for a, c, s in zip(at, centre, semi, strict=True):
        q = np.abs((a - np.float32(c)) / np.float32(s))
        total = total + (q * q if power == 2.0 else q ** np.float32(power))
    return total


def mirrored(at: Coordinates) -> Coordinates:
    """Coordinates with both sides folded onto the left."""
    return np.abs(at[0]), at[1], at[2]


def tube(at: Coordinates, nodes: Sequence[tuple[float, ...]]) -> BoolArray:
    """Inside of a tube through nodes (x, y, z, half width, half height)."""
    x, y, z = at
    out = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), np.bool_)
    near = (x < 42.0) & (np.abs(y + 15.0) < 60.0) & (np.abs(z) < 34.0)
    px, py, pz = (np.broadcast_to(a, out.shape)[near] for a in at)
    inside = np.zeros(px.shape, np.bool_)
    for a, b in pairwise(nodes):
        axis = np.subtract(b[:3], a[:3])
        t = ((px - a[0]) * axis[0] + (py - a[1]) * axis[1] + (pz - a[2]) * axis[2]) / (axis @ axis)
        t = np.clip(t, 0.0, 1.0)
        wide, high = (a[n] + t * (b[n] - a[n]) for n in (3, 4))
        dx, dy, dz = (p - (c + t * d) for p, c, d in zip((px, py, pz), a[:3], axis, strict=True))
        inside |= (dx * dx + dy * dy) / wide**2 + (dz / high) ** 2 < 1.0
    out[near] = inside
    return out
