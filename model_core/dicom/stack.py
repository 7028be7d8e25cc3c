"""Slices put on top of each other: their order by place, the grid that they make, or why none.

Nothing is believed but positions and orientations: instance numbers and file names follow whatever
the sender liked. Frame: LPS+ mm in, RAS+ mm out (`LPS_TO_RAS`); the array axes of the grid are
along a row (DICOM's columns), down a column (its rows), and from slice to slice along the normal,
which is row × column. So a grid is right-handed in LPS+, and no voxel is ever interpolated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_core.dicom.frames import Frame, Vector
from model_core.errors import ImageError
from model_core.imaging.grid import Grid

LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
"""x and y change their sign between DICOM's world and this project's."""
UNIT_TOLERANCE: Final = 1e-3
"""Direction cosines may miss length 1 and a right angle by this much: they are rounded in files."""
SPACING_TOLERANCE: Final = 1e-3
"""Relative; pixel spacings of one volume differ by less."""
SAME_PLACE_MM: Final = 0.01
"""Slices nearer to each other than this lie at one place."""
STEP_TOLERANCE: Final = 0.1
"""Relative; steps from slice to slice that differ by less are equal, but for rounding."""
JITTER_MM: Final = 0.1
"""How far rounding in a header may put a slice from its place in an even stack."""
SHEAR_TOLERANCE_DEG: Final = 0.1
"""Slices that drift sideways by more were acquired with a tilted gantry."""
_MOST_GAPS_TOLD: Final = 5
_CHUNK: Final = 2**20


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in the order of their places.

    Args:
        frames: ordered; identical duplicates are left out.
        grid: the lattice of their voxels, None if they make none.
        problems: why they make none, for people.
        warnings: what is odd and tolerated, for people.
    """

    frames: tuple[Frame, ...]
    grid: Grid | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def stacked(frames: Sequence[Frame]) -> Stack:
    """Order slices by place and work out their grid; every answer is in the result."""
    problems = _unusable(frames)
    if problems:
        return Stack(tuple(frames), problems=problems)
    normal = _axes(frames[0])[:, 2]
    ordered = sorted(frames, key=lambda frame: (_height(frame, normal), frame.instance_uid))
    single, dropped, clash = _without_duplicates(ordered)
    warnings = (f"identical copies of slices left out: {dropped}",) if dropped else ()
    if clash:
        words = f"slices with different images at one place: {clash}"
        return Stack(tuple(ordered), problems=(words,), warnings=warnings)
    problems = _irregular(single)
    if problems:
        return Stack(tuple(single), problems=problems, warnings=warnings)
    try:
        return Stack(tuple(single), _grid(single), warnings=warnings)
    except ImageError:
        words = "directions and spacing that make no grid in space"
        return Stack(tuple(single), problems=(words,), warnings=warnings)


def _unusable(frames: Sequence[Frame]) -> tuple[str, ...]:
    """What keeps slices from being compared with each other at all."""
    total = len(frames)
    missing = sum(None in (f.position, f.orientation, f.spacing) for f in frames)
    if missing:
        return (
            f"{missing} of {total} slices do not say where they lie (position, orientation or "
            "pixel spacing is missing or impossible)",
        )
    if any(frame.scaling is None for frame in frames):
        return ("a rescale slope or intercept that is no usable number",)
    if not all(_is_frame(frame.orientation) for frame in frames):
        return ("an orientation that is not two perpendicular directions of length 1",)
    problems = []
    sizes = sorted({frame.size for frame in frames})
    if len(sizes) > 1:
        problems.append(f"slices of {len(sizes)} sizes (rows × columns)")
    spacings = np.array([frame.spacing for frame in frames])
    if np.ptp(spacings, axis=0).max() > SPACING_TOLERANCE * spacings.min():
        problems.append("slices of different pixel spacing")
    if total == 1:
        problems.append("one slice only")
    return tuple(problems)


def _is_frame(orientation: Vector | None) -> bool:
    row, column = np.array(orientation).reshape(2, 3)
    with np.errstate(all="ignore"):  # absurd numbers give infinity, which is no unit vector
        off = (abs(row @ row - 1), abs(column @ column - 1), abs(row @ column))
    return bool(max(off) < 2 * UNIT_TOLERANCE)


def _axes(frame: Frame) -> NDArray[np.float64]:
    """Unit vectors along a row, down a column and along the normal, LPS+: the columns of 3 × 3."""
    row, column = np.array(frame.orientation, dtype=np.float64).reshape(2, 3)
    row = row / np.linalg.norm(row)
    column = column / np.linalg.norm(column)
    normal = np.cross(row, column)
    return np.stack([row, column, normal / np.linalg.norm(normal)], axis=1)


def _height(frame: Frame, normal: NDArray[np.float64]) -> float:
    """Place of a slice along the normal, in mm; the tenth digit is rounding."""
    return round(float(np.array(frame.position) @ normal), 9)


def _positions(frames: Sequence[Frame]) -> NDArray[np.float64]:
    return np.array([frame.position for frame in frames], dtype=np.float64)


def _without_duplicates(ordered: Sequence[Frame]) -> tuple[list[Frame], int, int]:
    """Give slices of different places, how many copies were dropped, and how many clash."""
    kept, dropped, clash = [ordered[0]], 0, 0
    digests: dict[Path, bytes] = {}
    places = _positions(ordered)
    last = 0
    for index in range(1, len(ordered)):
        if np.linalg.norm(places[index] - places[last]) >= SAME_PLACE_MM:
            kept.append(ordered[index])
            last = index
        elif _same_image(kept[-1], ordered[index], digests):
            dropped += 1
        else:
            clash += 1
    return kept, dropped, clash


def _same_image(first: Frame, second: Frame, digests: dict[Path, bytes]) -> bool:
    """Tell whether two files hold the same pixels, by their bytes; frames of one file never do."""
    if first.path == second.path or first.scaling != second.scaling:
        return False
    for frame in (first, second):
        if frame.path not in digests:
            digests[frame.path] = _pixel_digest(frame)
    return first.index == second.index and digests[first.path] == digests[second.path]


def _pixel_digest(frame: Frame) -> bytes:
    digest = hashlib.sha256()
    with frame.path.open("rb") as file:
        file.seek(frame.pixels_at)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


def _irregular(frames: Sequence[Frame]) -> tuple[str, ...]:
    """Why ordered slices of different places make no lattice, if they do not."""
    if len(frames) == 1:
        return ("one slice only",)
    axes, places = _axes(frames[0]), _positions(frames)
    local = (places - places[0]) @ axes
    heights = local[:, 2]
    steps = np.diff(heights)
    step = float(np.median(steps))
    if steps.min() < SAME_PLACE_MM:
        return ("slices that lie beside each other in one plane",)
    return _drift(local, heights) or _gaps(heights, steps, step)


def _drift(local: NDArray[np.float64], heights: NDArray[np.float64]) -> tuple[str, ...]:
    """Sideways moves from slice to slice: all alike are a tilted gantry."""
    slopes = local[-1, :2] / heights[-1]
    angle = float(np.degrees(np.arctan(np.linalg.norm(slopes))))
    rest = np.linalg.norm(local[:, :2] - np.outer(heights, slopes), axis=1).max()
    if rest > JITTER_MM:
        return (f"slices that are shifted sideways, unevenly, by up to {rest:.2f} mm",)
    if angle > SHEAR_TOLERANCE_DEG:
        return (f"slices sheared by {angle:.1f}° against their normal (tilted gantry)",)
    return ()


def _gaps(heights: NDArray[np.float64], steps: NDArray[np.float64], step: float) -> tuple[str, ...]:
    """Steps that are longer than the usual one: whole multiples are missing slices."""
    tolerance = STEP_TOLERANCE * step
    multiples = np.rint(steps / step)
    off = np.abs(steps - multiples * step)
    if (multiples < 1).any() or (off > tolerance * multiples).any():
        return _uneven(steps)
    gaps = np.flatnonzero(multiples > 1)
    if gaps.size:
        return (_missing(int((multiples - 1).sum()), heights, gaps),)
    even = np.linspace(0.0, heights[-1], len(heights))
    return _uneven(steps) if np.abs(heights - even).max() > JITTER_MM else ()


def _uneven(steps: NDArray[np.float64]) -> tuple[str, ...]:
    return (f"uneven steps between slices, from {steps.min():.2f} to {steps.max():.2f} mm",)


def _missing(count: int, heights: NDArray[np.float64], gaps: NDArray[np.intp]) -> str:
    places = [f"{heights[n]:.1f} and {heights[n + 1]:.1f}" for n in gaps[:_MOST_GAPS_TOLD]]
    more = " and elsewhere" if gaps.size > _MOST_GAPS_TOLD else ""
    where = f"between {', '.join(places)} mm from the first slice{more}"
    return f"{count} missing {'slice' if count == 1 else 'slices'}: {where}"


def _grid(frames: Sequence[Frame]) -> Grid:
    """Make the lattice: from slice to slice along the line from the first to the last.

    Raises:
        ImageError: `Grid` refuses it.
    """
    first, last = frames[0], frames[-1]
    places = _positions((first, last))
    axes = _axes(first)
    between_rows, between_columns = np.array([f.spacing for f in frames]).mean(axis=0)
    affine = np.eye(4)
    affine[:3, 0] = axes[:, 0] * between_columns
    affine[:3, 1] = axes[:, 1] * between_rows
    affine[:3, 2] = (places[1] - places[0]) / (len(frames) - 1)
    affine[:3, 3] = places[0]
    rows, columns = first.size
    return Grid((columns, rows, len(frames)), LPS_TO_RAS @ affine)
