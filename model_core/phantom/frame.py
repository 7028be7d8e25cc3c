"""The frame a phantom head is drawn in, and smooth random fields that live in it.

Frame: head millimetres, ``x`` grows to the patient's left, ``y`` to anterior, ``z`` to superior,
origin between the hemispheres near the anterior commissure. A full-size volume (240 x 240 x 155
voxels, BraTS geometry) has 1 mm per voxel; a smaller shape shows the same head, shrunk, so every
field is defined in millimetres of the head and never in voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from model_core.types import Shape3

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

FULL_SHAPE: Final[Shape3] = (240, 240, 155)
"""Voxels of a BraTS volume: right to left, anterior to posterior, inferior to superior."""
ORIGIN_VOXEL: Final = (119.5, 128.0, 72.0)
"""Where the head's origin lies in a full-size volume."""
HALF_BOX_MM: Final = (73.0, 93.0, 71.0)
"""Half extent of the box, around the origin, that holds every head."""


@dataclass(frozen=True)
class HeadFrame:
    """Head coordinates of the voxels in the box of a volume that holds the brain.

    Attributes:
        shape: voxels of the whole volume.
        step: head millimetres per voxel along the array axes.
        box: where the brain box lies in the volume.
        x: head coordinate along the first axis, shape (X, 1, 1).
        y: along the second, shape (1, Y, 1); falls with the index.
        z: along the third, shape (1, 1, Z).
    """

    shape: Shape3
    step: tuple[float, float, float]
    box: tuple[slice, slice, slice]
    x: FloatArray
    y: FloatArray
    z: FloatArray

    @property
    def box_shape(self) -> Shape3:
        """Voxels of the brain box."""
        return self.x.size, self.y.size, self.z.size

    def sigma(self, millimetres: float) -> tuple[float, float, float]:
        """A Gaussian's width in voxels along each axis."""
        return millimetres / self.step[0], millimetres / self.step[1], millimetres / self.step[2]

    def blur(self, field: npt.NDArray[np.generic], millimetres: float) -> FloatArray:
        """Gaussian blur of a field over the box; `millimetres` is the standard deviation."""
        out: FloatArray = ndimage.gaussian_filter(
            field.astype(np.float32), self.sigma(millimetres), mode="nearest", truncate=3.0
        )
        return out

    def distance_to(self, target: BoolArray) -> FloatArray:
        """Head millimetres from every voxel of the box to the nearest voxel of `target`."""
        if not target.any():
            return np.full(target.shape, 1e3, np.float32)
        out = ndimage.distance_transform_edt(~target, sampling=self.step)
        return np.asarray(out, np.float32)

    def gradient(self, field: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Derivatives of a field over the box along head x, y and z, per millimetre."""
        gx, gy, gz = (np.asarray(g, np.float32) for g in np.gradient(field, *self.step))
        return gx, -gy, gz


def head_frame(shape: Shape3) -> HeadFrame:
    """Lay the head into a volume of `shape`."""
    step = tuple(full / size for full, size in zip(FULL_SHAPE, shape, strict=True))
    axes: list[FloatArray] = []
    box: list[slice] = []
    for axis, sign in enumerate((1.0, -1.0, 1.0)):
        # Voxel centres: index i covers [i, i + 1) of its own grid, so halves survive the scaling.
        centres = (np.arange(shape[axis]) + 0.5) * step[axis] - 0.5
        head = sign * (centres - ORIGIN_VOXEL[axis])
        inside = np.flatnonzero(np.abs(head) <= HALF_BOX_MM[axis])
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
        axes.append(head[box[-1]].astype(np.float32))
    return HeadFrame(
        shape=shape,
        step=(step[0], step[1], step[2]),
        box=(box[0], box[1], box[2]),
        x=axes[0][:, None, None],
        y=axes[1][None, :, None],
        z=axes[2][None, None, :],
    )


@dataclass(frozen=True)
class SmoothNoise:
    """A unit-variance random field, held as cubic B-spline coefficients on a coarse lattice.

    The lattice is fixed in the head, so the same field can be asked for on any grid.
    """

    coefficients: FloatArray
    spacing: float

    def on(self, frame: HeadFrame) -> FloatArray:
        """The field at every voxel of the box, by three small matrix products."""
        a, b, c = (
            _spline_matrix(axis.ravel(), self.spacing, size)
            for axis, size in zip((frame.x, frame.y, frame.z), self.coefficients.shape, strict=True)
        )
        out = np.einsum("ia,abc->ibc", a, self.coefficients, optimize=True)
        out = np.einsum("jb,ibc->ijc", b, out, optimize=True)
        return np.asarray(np.einsum("kc,ijc->ijk", c, out, optimize=True), np.float32)

    def at(self, points: Sequence[FloatArray]) -> FloatArray:
        """The field at scattered head points: three arrays of one shape, x, y and z."""
        centre = [(size - 1) / 2 for size in self.coefficients.shape]
        where = [p / self.spacing + c for p, c in zip(points, centre, strict=True)]
        return np.asarray(
            ndimage.map_coordinates(
                self.coefficients, where, order=3, mode="nearest", prefilter=False
            ),
            np.float32,
        )


def smooth_noise(
    rng: np.random.Generator, wavelength: float, *, bandwidth: float | None = None
) -> SmoothNoise:
    """Draw a random field whose structures measure about `wavelength` millimetres.

    Args:
        rng: source of randomness; consumed in one draw.
        wavelength: of the band's centre, or the shortest one present where no band is given.
        bandwidth: relative width of the band around it; None lets all longer waves through.
    """
    spacing = wavelength / 3.3
    size = [
        fft.next_fast_len(int(2 * (half + 12.0) / spacing) + 5, real=True) for half in HALF_BOX_MM
    ]
    white = rng.standard_normal(size, dtype=np.float32)
    fx, fy = (fft.fftfreq(n).astype(np.float32) for n in size[:2])
    fz = fft.rfftfreq(size[2]).astype(np.float32)
    k = np.sqrt(fx[:, None, None] ** 2 + fy[:, None] ** 2 + fz**2) * np.float32(3.3)
    gain = np.exp(-0.5 * (((k - 1.0) / bandwidth) if bandwidth else (k / 0.6)) ** 2)
    gain[0, 0, 0] = 0.0  # no constant part
    gain /= _deviation(gain, (fx, fy, fz), size[2])
    field = fft.irfftn(fft.rfftn(white) * gain, s=size)
    return SmoothNoise(np.asarray(field, np.float32), spacing)


def _deviation(gain: FloatArray, frequencies: Sequence[FloatArray], depth: int) -> float:
    """Standard deviation that white noise has after this gain and after the spline's smoothing."""
    fx, fy, fz = ((2.0 + np.cos(2.0 * np.pi * f)) / 3.0 for f in frequencies)
    twice = np.full(fz.size, 2.0)  # the half spectrum holds all but the edge planes once for two
    twice[0] = 1.0
    if depth % 2 == 0:
        twice[-1] = 1.0
    power = (gain * fx[:, None, None] * fy[:, None] * fz) ** 2 * twice
    return float(np.sqrt(power.sum() / (gain.shape[0] * gain.shape[1] * depth)))


def _spline_matrix(positions: FloatArray, spacing: float, size: int) -> FloatArray:
    """Weights (positions, lattice) of the uniform cubic B-spline centred on the lattice."""
    where = positions / spacing + (size - 1) / 2
    t = np.abs(where[:, None] - np.arange(size)[None, :])
    near = 2.0 / 3.0 - t**2 + t**3 / 2.0
    far = np.clip(2.0 - t, 0.0, None) ** 3 / 6.0
    return np.asarray(np.where(t < 1.0, near, far), np.float32)


def main_part(mask: BoolArray) -> BoolArray:
    """The largest connected part of a mask."""
    parts, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == int(sizes.argmax()), np.bool_)
