"""The healthy brain of a phantom, drawn from implicit surfaces and level sets of noise.

Hulls (cerebrum, temporal lobes, cerebellum, brainstem) are smooth implicit solids; sulci are the
zero sheets of a band-limited random field followed from the surface inwards, so they stand
perpendicular to it and end at a depth that varies; cortex is what lies within a few millimetres
of a sulcus or of the surface. Frame and units: see `model_core.phantom.frame`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from model_core.phantom.frame import BoolArray, FloatArray, HeadFrame, main_part, smooth_noise
from model_core.phantom.hulls import Hulls, find_fissures, find_hulls
from model_core.phantom.solids import Coordinates, ellipsoid, mirrored, tube


class Tissue(IntEnum):
    """What a voxel of the healthy head is made of."""

    OUTSIDE = 0
    MENINGES = 1  # the rim that skull stripping leaves: fluid, dura and partial volume
    CSF = 2  # in sulci, fissures and cisterns
    VENTRICLE = 3
    GREY = 4
    WHITE = 5
    DEEP_GREY = 6
    PALLIDUM = 7
    CEREBELLAR = 8
    BRAINSTEM = 9
    CHOROID = 10


@dataclass(frozen=True)
class Anatomy:
    """The healthy head over the brain box.

    Attributes:
        tissue: `Tissue` of every voxel.
        sulcal: fraction 0..1 of sulcal fluid in a voxel, finer than the tissue map.
        depth: millimetres below the pial hull (sulci not counted).
        cerebrum: voxels of the two hemispheres, all tissues.
    """

    tissue: npt.NDArray[np.uint8]
    sulcal: FloatArray
    depth: FloatArray
    cerebrum: BoolArray


def build_anatomy(frame: HeadFrame, rng: np.random.Generator, displaced: Coordinates) -> Anatomy:
    """Draw one individual.

    Args:
        frame: the grid.
        rng: source of the individual's shape.
        displaced: coordinates for inner structures, with the lesion's mass effect in them.
    """
    warp = _warp(frame, rng)
    surface = _add((frame.x, frame.y, frame.z), warp)
    inner = _add(displaced, warp)
    hulls = find_hulls(surface)
    fissures = find_fissures(frame, rng, surface, inner)
    hemispheres = hulls.cerebrum & ~fissures
    depth = frame.distance_to(~(hemispheres | hulls.brainstem))
    sulci, sulcal = _sulci(frame, rng, depth, hemispheres)
    fluid_or_outside = ~(hemispheres | hulls.brainstem) | sulci
    tissue = np.zeros(frame.box_shape, np.uint8)
    _paint_mask(frame, rng, tissue, hulls, surface)
    _paint_cerebrum(frame, rng, tissue, hemispheres, frame.distance_to(fluid_or_outside))
    _paint_inner(tissue, hemispheres, inner)
    folia = _paint_hindbrain(frame, rng, tissue, hulls, inner)
    tissue[sulci & (sulcal > 0.6)] = Tissue.CSF
    _paint_ventricles(tissue, inner)
    tissue[~main_part(tissue != Tissue.OUTSIDE)] = Tissue.OUTSIDE
    sulcal = np.maximum(sulcal, folia) * (tissue != Tissue.OUTSIDE)
    return Anatomy(tissue=tissue, sulcal=sulcal, depth=depth, cerebrum=hemispheres)


def _warp(frame: HeadFrame, rng: np.random.Generator) -> Coordinates:
    """What makes this head an individual: size, a slow bend and left/right torque."""
    fields = [2.0 * smooth_noise(rng, 75.0).on(frame) for _ in range(3)]
    fine = [0.7 * smooth_noise(rng, 22.0).on(frame) for _ in range(3)]
    scale = rng.uniform(-0.035, 0.035, 3)
    torque = rng.uniform(0.01, 0.03)  # right frontal and left occipital lobes protrude
    x = fields[0] + fine[0] + scale[0] * frame.x + torque * frame.y
    y = fields[1] + fine[1] + scale[1] * frame.y
    z = fields[2] + fine[2] + scale[2] * frame.z
    return x.astype(np.float32), y.astype(np.float32), z.astype(np.float32)


def _add(a: Coordinates, b: Coordinates) -> Coordinates:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _sulci(
    frame: HeadFrame, rng: np.random.Generator, depth: FloatArray, hemispheres: BoolArray
) -> tuple[BoolArray, FloatArray]:
    """Sheets of sulcal fluid: as a mask for the cortex to follow, and as a soft fraction."""
    primary, secondary = (smooth_noise(rng, mm, bandwidth=0.18) for mm in (27.0, 17.0))
    reach = np.clip(17.0 + 4.5 * smooth_noise(rng, 30.0).on(frame), 4.0, 25.0)
    width = 0.72 + 0.3 * smooth_noise(rng, 40.0).on(frame)
    shallow = hemispheres & (depth < 24.0)
    points = _foot_points(frame, depth, shallow)
    for axis in range(3):
        points[axis] += 1.5 * smooth_noise(rng, 15.0).on(frame)[shallow]
    mask = np.zeros(hemispheres.shape, np.bool_)
    fraction = np.zeros(hemispheres.shape, np.float32)
    for field, share in ((primary, 1.0), (secondary, 0.38)):
        values = np.full(hemispheres.shape, 1.0, np.float32)
        values[shallow] = field.at(points)
        gx, gy, gz = frame.gradient(values)
        sheet = np.abs(values) / (np.sqrt(gx * gx + gy * gy + gz * gz) + 1e-3)
        limit = share * reach
        half = np.clip(width, 0.3, 1.6) * (0.45 + 0.55 * share) * (1.0 - 0.7 * depth / limit)
        near = shallow & (depth < limit)
        mask |= near & (sheet < np.maximum(half, 0.6 * max(frame.step)))
        fraction = np.maximum(fraction, np.where(near, np.clip(half - sheet + 0.35, 0.0, 1.0), 0.0))
    return mask, fraction


def _foot_points(frame: HeadFrame, depth: FloatArray, where: BoolArray) -> list[FloatArray]:
    """For voxels in `where`, about the nearest point of the surface (so sheets run inwards)."""
    smooth = frame.blur(depth, 2.0)
    gradient = frame.gradient(smooth)
    steep = np.sqrt(gradient[0] ** 2 + gradient[1] ** 2 + gradient[2] ** 2)
    walk = 0.85 * depth / np.maximum(steep, 0.35)
    return [
        (axis - walk * g)[where]
        for axis, g in zip((frame.x, frame.y, frame.z), gradient, strict=True)
    ]


_CISTERNS: Final = (
    ((0.0, -40.0, -3.0), (14.0, 10.0, 8.0)),  # quadrigeminal
    ((0.0, 6.0, -16.0), (12.0, 12.0, 7.0)),  # suprasellar
    ((17.0, -22.0, -14.0), (5.0, 14.0, 8.0)),  # ambient
)


def _paint_mask(
    frame: HeadFrame,
    rng: np.random.Generator,
    tissue: npt.NDArray[np.uint8],
    hulls: Hulls,
    at: Coordinates,
) -> None:
    """What skull stripping keeps: the parts, the fluid between them and a rough thin rim."""
    union = hulls.cerebrum | hulls.cerebellum | hulls.brainstem
    cisterns = np.zeros(union.shape, np.bool_)
    for centre, semi in _CISTERNS:
        cisterns |= ellipsoid(mirrored(at), centre, semi) < 1.0
    rough = 0.07 * smooth_noise(rng, 9.0).on(frame) + 0.06 * smooth_noise(rng, 30.0).on(frame)
    mask = (frame.blur(union | cisterns, 2.2) + rough > 0.44) | union | cisterns
    mask = ndimage.binary_fill_holes(mask) & (frame.blur(mask, 4.0) > 0.2)
    tissue[mask] = Tissue.CSF
    tissue[mask & ~ndimage.binary_erosion(mask) & ~union] = Tissue.MENINGES


def _paint_cerebrum(
    frame: HeadFrame,
    rng: np.random.Generator,
    tissue: npt.NDArray[np.uint8],
    hemispheres: BoolArray,
    distance: FloatArray,
) -> None:
    """White matter under a cortex of varying thickness."""
    thickness = 2.0 + 0.4 * smooth_noise(rng, 20.0).on(frame)
    tissue[hemispheres] = Tissue.WHITE
    tissue[hemispheres & (distance < thickness + 0.5 * max(frame.step))] = Tissue.GREY


_NUCLEI: Final = (
    (Tissue.DEEP_GREY, (10.5, -18.0, 5.0), (8.5, 14.0, 9.0)),  # thalamus
    (Tissue.DEEP_GREY, (13.5, 17.0, 6.0), (5.0, 11.0, 9.0)),  # caudate head
    (Tissue.DEEP_GREY, (17.5, -4.0, 19.0), (3.0, 18.0, 4.0)),  # caudate body
    (Tissue.DEEP_GREY, (26.5, 2.0, 1.0), (5.5, 16.0, 10.0)),  # putamen
    (Tissue.PALLIDUM, (19.5, -2.0, -1.0), (4.5, 9.0, 7.0)),
    (Tissue.DEEP_GREY, (25.0, -2.0, -20.0), (7.0, 8.0, 7.0)),  # amygdala
    (Tissue.DEEP_GREY, (27.0, -20.0, -16.0), (5.5, 17.0, 5.0)),  # hippocampus
)


def _paint_inner(tissue: npt.NDArray[np.uint8], hemispheres: BoolArray, at: Coordinates) -> None:
    """Corpus callosum, central white matter and the deep nuclei of both sides."""
    x, y, z = folded = mirrored(at)
    ring = ((y + 3.0) / 43.0) ** 2 + ((z - 2.0) / 24.0) ** 2
    callosum = (x < 14.0) & (ring < 1.12) & (ring > 0.62) & (z > 1.0)
    central = ellipsoid(folded, (17.0, -4.0, 4.0), (18.0, 34.0, 20.0)) < 1.0
    tissue[hemispheres & (callosum | central)] = Tissue.WHITE
    for kind, centre, semi in _NUCLEI:
        tissue[hemispheres & (ellipsoid(folded, centre, semi, power=2.3) < 1.0)] = kind


def _paint_hindbrain(
    frame: HeadFrame,
    rng: np.random.Generator,
    tissue: npt.NDArray[np.uint8],
    hulls: Hulls,
    at: Coordinates,
) -> FloatArray:
    """Brainstem and cerebellum; returns the fluid fraction between the folia.

    Folia are leaves that radiate, seen from the side, from the white core and run from left to
    right; the white branches follow every other group of them.
    """
    x, y, z = folded = mirrored(at)
    tissue[hulls.brainstem] = Tissue.BRAINSTEM
    tissue[hulls.cerebellum] = Tissue.CEREBELLAR
    level = ellipsoid(folded, (18.0, -50.0, -36.0), (37.0, 29.0, 28.0), power=2.2) ** 0.5
    back = y + 34.0 + 0.010 * x * x
    angle = np.arctan2(z + 36.0, -back) + 0.07 * smooth_noise(rng, 14.0).on(frame)
    white = (level < 0.50 + 0.26 * np.sin(8.0 * angle)) & (x > 4.0)
    stalk = ellipsoid(folded, (13.0, -34.0, -34.0), (7.0, 12.0, 7.0)) < 1.0
    tissue[hulls.cerebellum & (white | stalk)] = Tissue.WHITE
    uneven = 0.45 * smooth_noise(rng, 12.0).on(frame)
    leaves = np.clip(2.2 * np.cos(36.0 * angle + 1.5 * uneven) - 1.5 + uneven, 0.0, 0.6)
    return np.asarray(
        leaves * np.clip((level - 0.45) * 3.0, 0.0, 1.0) * hulls.cerebellum, np.float32
    )


_VENTRICLE: Final = (
    # x, y, z, half width, half height
    (8.5, 33.0, 4.0, 3.0, 5.5),
    (8.0, 22.0, 9.0, 5.2, 8.5),
    (8.5, 2.0, 15.5, 5.6, 7.5),
    (13.0, -18.0, 17.0, 5.4, 7.5),
    (20.5, -36.0, 11.0, 6.2, 10.0),
    (24.5, -50.0, 5.0, 4.4, 7.0),
    (24.0, -66.0, 2.0, 1.8, 3.0),
)
_TEMPORAL_HORN: Final = (
    (22.0, -36.0, 10.0, 5.0, 6.0),
    (31.0, -28.0, -5.0, 2.6, 3.0),
    (33.0, -14.0, -14.0, 2.0, 2.2),
    (32.0, -4.0, -17.0, 1.5, 1.8),
)


def _paint_ventricles(tissue: npt.NDArray[np.uint8], at: Coordinates) -> None:
    """Lateral, third and fourth ventricles, cisterns behind the midbrain, choroid plexus."""
    folded = mirrored(at)
    brain = tissue != Tissue.OUTSIDE
    lateral = (tube(folded, _VENTRICLE) | tube(folded, _TEMPORAL_HORN)) & (folded[0] > 1.2)
    third = ellipsoid(folded, (0.0, -8.0, 0.0), (1.8, 17.0, 12.0), power=3.0) < 1.0
    fourth = ellipsoid(folded, (0.0, -38.0, -35.0), (7.5, 5.0, 10.0), power=1.6) < 1.0
    behind = ellipsoid(folded, (0.0, -39.0, -4.0), (13.0, 5.0, 7.0), power=1.2) < 1.0
    tissue[brain & behind] = Tissue.CSF
    tissue[brain & (lateral | third | fourth)] = Tissue.VENTRICLE
    plexus = ellipsoid(folded, (20.5, -36.0, 9.0), (2.2, 4.5, 4.0)) < 1.0
    tissue[brain & plexus] = Tissue.CHOROID
