"""Two diameters of a lesion at right angles on one axial slice, as the RANO criteria measure them.

On a slice, the longest diameter joins the two points of the lesion's outline that are farthest
apart; the perpendicular is the longest line at right angles to it with both ends on the outline.
Both may cross what lies between parts of the lesion, as a caliper does: an enhancing rim is
measured across its necrosis. Of all slices, the one with the largest product counts.

Source: RANO 2.0 (Wen et al., J Clin Oncol 2023, doi 10.1200/JCO.23.01059). What it also asks of a
reader is not decided here: which lesions are targets, whether a cavity belongs to the tumour,
whether margins are clear.

Frame: arrays are (X, Y, Z) with axial slices along the last axis; points are voxel indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_core.findings.extent import Extent, longest_diameter, surface_points
from model_core.labels import Mask

Chord = NDArray[np.float64]
"""(2, 2): the two ends of a line in a slice, as voxel indices."""
_SIDES: Final = ((0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5))
"""The middles of the sides of a square of four voxel centres, from its first corner."""
_NEAR: Final = 1e-9
_BLOCK: Final = 1 << 20
"""Positions times pieces looked at in one go: 8 MB an array, whatever the lesion."""


@dataclass(frozen=True, eq=False)
class Section:
    """The two diameters on one slice.

    Args:
        index: the slice.
        long: ends of the longest diameter.
        short: ends of the longest perpendicular to it.
        long_mm: length of the first.
        short_mm: length of the second.
    """

    index: int
    long: Chord
    short: Chord
    long_mm: float
    short_mm: float

    @property
    def product_mm2(self) -> float:
        """The product of the two diameters, in mm²."""
        return self.long_mm * self.short_mm


def largest_section(lesion: Mask, columns: NDArray[np.float64]) -> Section:
    """The two diameters on the slice where their product is largest.

    Args:
        lesion: (X, Y, Z), at least one voxel.
        columns: (3, 2), one step along the first and the second array axis in mm.

    Returns:
        the section; on a tie of products the one found first, going by the largest possible one.
    """
    plane = np.linalg.qr(columns)[1]
    used = np.flatnonzero(lesion.any(axis=(0, 1)))
    slices = [_Slice(int(index), lesion[:, :, index], plane) for index in used]
    best: Section | None = None
    for candidate in sorted(slices, key=lambda one: one.bound, reverse=True):
        if best is not None and candidate.bound <= best.product_mm2:
            break
        found = candidate.section()
        if best is None or found.product_mm2 > best.product_mm2:
            best = found
    assert best is not None, "a lesion has a voxel"
    return best


@dataclass(frozen=True, eq=False)
class _Slice:
    """One slice of a lesion; `plane` (2, 2) turns its indices into mm in the plane."""

    index: int
    mask: Mask
    plane: NDArray[np.float64]

    @cached_property
    def extent(self) -> Extent:
        """The longest diameter, cheap."""
        return longest_diameter(surface_points(self.mask), self.plane)

    @cached_property
    def bound(self) -> float:
        """No product on this slice is larger: the perpendicular is at most the hull's width."""
        hull = self.extent.hull @ self.plane.T
        widths = [
            np.ptp(hull @ _across(_direction(pair, self.plane))) for pair in self.extent.pairs
        ]
        return self.extent.length_mm * float(max(widths))

    def section(self) -> Section:
        """Of several equally long diameters, the one with the longest perpendicular."""
        # holes change no reach: the outline around them lies farther out
        outline = outline_pieces(ndimage.binary_fill_holes(self.mask))
        back = np.linalg.inv(self.plane)
        best: Section | None = None
        for pair in self.extent.pairs:
            short, short_mm = _perpendicular(outline @ self.plane.T, _direction(pair, self.plane))
            if best is None or short_mm > best.short_mm:
                best = Section(self.index, pair, short @ back.T, self.extent.length_mm, short_mm)
        assert best is not None, "an extent has a pair"
        return best


def outline_pieces(mask: Mask) -> NDArray[np.float64]:
    """The outline of a plane mask as straight pieces (S, 2, 2), in voxel indices.

    Marching squares: between four neighbouring centres the outline joins the middles of the sides
    whose ends differ. Where the mask touches itself at a corner only, all four middles are joined:
    it is one piece there, as with 8-connectivity.
    """
    padded = np.pad(mask, 1)
    corners = (padded[:-1, :-1], padded[1:, :-1], padded[1:, 1:], padded[:-1, 1:])
    crossed = [corners[side] != corners[(side + 1) % 4] for side in range(4)]
    pieces = []
    for one, other in combinations(range(4), 2):
        cells = np.argwhere(crossed[one] & crossed[other]) - 1.0
        pieces.append(np.stack([cells + _SIDES[one], cells + _SIDES[other]], axis=1))
    return np.concatenate(pieces)


def _direction(pair: Chord, plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vector along a chord, in mm in the plane."""
    step: NDArray[np.float64] = plane @ (pair[1] - pair[0])
    return step / np.linalg.norm(step)


def _across(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([-direction[1], direction[0]])


def _perpendicular(
    outline: NDArray[np.float64], direction: NDArray[np.float64]
) -> tuple[Chord, float]:
    """The longest chord at right angles to a direction; its ends and length in mm.

    The reach of the outline across the direction is linear between the corners of the outline, so
    the longest chord passes through a corner: trying them all is exact.
    """
    across = _across(direction)
    along_t, across_v = outline @ direction, outline @ across
    at = np.unique(along_t)
    blocks = np.array_split(at, -(-len(at) * len(outline) // _BLOCK))
    reaches = [_reach(block, along_t, across_v) for block in blocks]
    low, high = (np.concatenate(side) for side in zip(*reaches, strict=True))
    longest = int(np.argmax(high - low))
    ends = [at[longest] * direction + v * across for v in (low[longest], high[longest])]
    return np.stack(ends), float(high[longest] - low[longest])


def _reach(
    at: NDArray[np.float64], along_t: NDArray[np.float64], across_v: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest v of the pieces (S, 2) that pass each position t."""
    (t0, t1), (v0, v1) = along_t.T, across_v.T
    least, most = np.minimum(v0, v1), np.maximum(v0, v1)
    upright = np.abs(t1 - t0) < _NEAR
    slope = np.where(upright, 0.0, (v1 - v0) / np.where(upright, 1.0, t1 - t0))
    v = np.clip(v0 + slope * (at[:, None] - t0), least, most)
    here = (at[:, None] >= np.minimum(t0, t1) - _NEAR) & (at[:, None] <= np.maximum(t0, t1) + _NEAR)
    low = np.where(here, np.where(upright, least, v), np.inf).min(axis=1)
    high = np.where(here, np.where(upright, most, v), -np.inf).max(axis=1)
    return low, high
