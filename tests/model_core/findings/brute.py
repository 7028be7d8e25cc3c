"""The slow, obvious truth about diameters: every pair of points, every line through a corner."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
TIE = 1e-9


def face_centres(mask: NDArray[np.bool_]) -> Array:
    """The centre of every voxel face between inside and outside, as voxel indices."""
    found = []
    for voxel in np.argwhere(mask):
        for axis, step in product(range(mask.ndim), (-1, 1)):
            other = voxel.copy()
            other[axis] += step
            inside = (other >= 0).all() and (other < mask.shape).all() and mask[tuple(other)]
            if not inside:
                point = voxel.astype(float)
                point[axis] += step / 2
                found.append(point)
    return np.array(found)


def longest(points: Array) -> tuple[float, list[tuple[int, int]]]:
    """The largest distance in mm between two of the points, and every pair that has it."""
    distances = {
        (i, j): float(np.linalg.norm(points[i] - points[j]))
        for i, j in combinations(range(len(points)), 2)
    }
    best = max(distances.values())
    return best, [pair for pair, length in distances.items() if length >= best * (1 - TIE)]


def longest_in_space(mask: NDArray[np.bool_], affine: Array) -> float:
    """The longest diameter of one part, in mm."""
    return longest(face_centres(mask) @ affine[:3, :3].T)[0]


def parts(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    ids, count = ndimage.label(mask, np.ones((3, 3, 3)))
    return [ids == number for number in range(1, count + 1)]


def largest_product(mask: NDArray[np.bool_], affine: Array, axis: int) -> float:
    """The largest product of two diameters at right angles over all slices of one part, in mm²."""
    in_plane = [other for other in range(3) if other != axis]
    columns = affine[:3, in_plane]
    best = 0.0
    for index in range(mask.shape[axis]):
        section = mask.take(index, axis=axis)
        if section.any():
            best = max(best, _product(section, columns))
    return best


def _product(section: NDArray[np.bool_], columns: Array) -> float:
    first = columns[:, 0] / np.linalg.norm(columns[:, 0])
    second = columns[:, 1] - (columns[:, 1] @ first) * first
    plane = np.stack([first, second / np.linalg.norm(second)]) @ columns
    points = face_centres(section) @ plane.T
    length, pairs = longest(points)
    cells = [cell @ plane.T for cell in _cells(section)]
    return length * max(_perpendicular(points, cells, points[j] - points[i]) for i, j in pairs)


def _cells(section: NDArray[np.bool_]) -> list[Array]:
    """What lies inside each square of four centres: a polygon of corners and middles of sides."""
    padded = np.pad(section, 1)
    found = []
    for i, j in product(range(padded.shape[0] - 1), range(padded.shape[1] - 1)):
        corners = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]
        polygon = []
        for here, following in zip(corners, corners[1:] + corners[:1], strict=True):
            if padded[here]:
                polygon.append(np.array(here, float))
            if padded[here] != padded[following]:
                polygon.append((np.array(here, float) + np.array(following, float)) / 2)
        if polygon:
            found.append(np.array(polygon) - 1)
    return found


def _perpendicular(points: Array, cells: list[Array], direction: Array) -> float:
    u = direction / np.linalg.norm(direction)
    w = np.array([-u[1], u[0]])
    best = 0.0
    for at in points @ u:
        crossed = [v for cell in cells for v in _crossings(cell @ u - at, cell @ w)]
        best = max(best, max(crossed) - min(crossed))
    return best


def _crossings(t: Array, v: Array) -> list[float]:
    """Where the line t = 0 meets the sides and corners of a convex polygon."""
    found = [float(b) for a, b in zip(t, v, strict=True) if abs(a) < TIE]
    for one in range(len(t)):
        other = (one + 1) % len(t)
        if t[one] * t[other] < 0 and min(abs(t[one]), abs(t[other])) >= TIE:
            share = t[one] / (t[one] - t[other])
            found.append(float(v[one] + share * (v[other] - v[one])))
    return found
