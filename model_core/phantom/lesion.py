"""The lesion of a phantom: a ring-enhancing tumour, its necrotic core and its oedema.

All lengths are head millimetres (see `model_core.phantom.frame`). The core is a level set of a
distance disturbed by noise; oedema walks outwards from it through white matter only, so it
follows the gyral stems and crosses neither cortex nor ventricles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from model_core.phantom.anatomy import Anatomy, Tissue
from model_core.phantom.frame import BoolArray, FloatArray, HeadFrame, main_part, smooth_noise
from model_core.types import Label

_SITES: Final = (
    (30.0, 34.0, 22.0),  # frontal
    (32.0, -8.0, 34.0),  # fronto-parietal
    (34.0, -36.0, 26.0),  # parietal
    (30.0, -58.0, 10.0),  # occipital
    (41.0, -16.0, -13.0),  # temporal
)
"""Centres of lobar white matter on the left side, where glioblastomas grow."""


@dataclass(frozen=True)
class LesionPlan:
    """Where the lesion will be and how big, decided before the anatomy is drawn.

    Attributes:
        centre: head millimetres.
        radius: of the core (necrosis and enhancing rim).
        stretch: factors on the radius along x, y, z.
        oedema: how far oedema reaches beyond the core on average.
    """

    centre: tuple[float, float, float]
    radius: float
    stretch: tuple[float, float, float]
    oedema: float

    @property
    def side(self) -> float:
        """+1 on the patient's left, -1 on the right."""
        return 1.0 if self.centre[0] > 0 else -1.0


@dataclass(frozen=True)
class Lesion:
    """Labels over the brain box, and the soft weights the contrasts are mixed with."""

    labels: npt.NDArray[np.uint8]
    core_distance: FloatArray


def plan_lesion(rng: np.random.Generator) -> LesionPlan:
    """Choose side, lobe, place, size and shape."""
    side = 1.0 if rng.random() < 0.5 else -1.0
    site = _SITES[int(rng.integers(len(_SITES)))]
    x, y, z = (float(c + rng.uniform(-4.0, 4.0)) for c in site)
    sx, sy, sz = (float(s) for s in rng.uniform(0.85, 1.15, 3))
    return LesionPlan(
        centre=(side * x, y, z),
        radius=float(rng.uniform(17.0, 22.0)),
        stretch=(0.95 * sx, 1.1 * sy, 1.0 * sz),
        oedema=float(rng.uniform(17.0, 23.0)),
    )


def push_aside(frame: HeadFrame, plan: LesionPlan) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Where each voxel's tissue sat before the lesion grew (mass effect on inner structures)."""
    delta = [a - c for a, c in zip((frame.x, frame.y, frame.z), plan.centre, strict=True)]
    square = delta[0] ** 2 + delta[1] ** 2 + delta[2] ** 2
    pull = (0.38 * np.exp(-square / (2.0 * (1.25 * plan.radius) ** 2))).astype(np.float32)
    x, y, z = (
        (a - pull * d).astype(np.float32)
        for a, d in zip((frame.x, frame.y, frame.z), delta, strict=True)
    )
    return x, y, z


def grow_lesion(
    frame: HeadFrame, rng: np.random.Generator, plan: LesionPlan, anatomy: Anatomy
) -> Lesion:
    """Grow the planned lesion in the anatomy."""
    distance = _core_distance(frame, rng, plan)
    room = _room(frame, plan, anatomy)
    core = main_part((distance < 0.0) & room)
    rim = 4.6 + 2.2 * smooth_noise(rng, 18.0).on(frame) + 0.8 * smooth_noise(rng, 7.0).on(frame)
    inside = _distance_inside(frame, core)
    necrosis = core & (inside > np.clip(rim, 2.2, 9.0) + 0.5 * max(frame.step))
    oedema = _oedema(frame, rng, plan, anatomy, core=core, distance=distance)
    labels = np.zeros(core.shape, np.uint8)
    labels[oedema] = Label.ED
    labels[core] = Label.ET
    labels[necrosis] = Label.NCR
    return Lesion(labels=labels, core_distance=distance)


def _core_distance(frame: HeadFrame, rng: np.random.Generator, plan: LesionPlan) -> FloatArray:
    """Signed distance to the core's surface, about in millimetres, negative inside."""
    q = [
        (a - c) / (plan.radius * s)
        for a, c, s in zip((frame.x, frame.y, frame.z), plan.centre, plan.stretch, strict=True)
    ]
    r = np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2)
    bumps = 0.17 * smooth_noise(rng, 34.0).on(frame) + 0.06 * smooth_noise(rng, 12.0).on(frame)
    return np.asarray(plan.radius * (r - 1.0 + bumps), np.float32)


def _room(frame: HeadFrame, plan: LesionPlan, anatomy: Anatomy) -> BoolArray:
    """Where a core may grow: its own hemisphere's parenchyma, a little below the surface."""
    own_side = np.broadcast_to(frame.x * plan.side > 2.5, anatomy.tissue.shape)
    solid = anatomy.cerebrum & (anatomy.tissue != Tissue.VENTRICLE)
    return np.asarray(own_side & solid & (anatomy.depth > 1.5), np.bool_)


def _oedema(
    frame: HeadFrame,
    rng: np.random.Generator,
    plan: LesionPlan,
    anatomy: Anatomy,
    *,
    core: BoolArray,
    distance: FloatArray,
) -> BoolArray:
    """White matter that can be reached from the core, within a reach that varies by direction."""
    reach = plan.oedema * (1.0 + 0.45 * smooth_noise(rng, 40.0).on(frame))
    reach += 3.0 * smooth_noise(rng, 10.0).on(frame)
    own_side = frame.x * plan.side > 1.0
    solid = anatomy.cerebrum & ~np.isin(anatomy.tissue, (Tissue.CSF, Tissue.VENTRICLE))
    stem = np.isin(anatomy.tissue, (Tissue.WHITE, Tissue.PALLIDUM)) & solid
    white = stem & own_side & (distance < reach)
    # The growing edge has infiltrated what touches it, be it cortex: oedema starts from there.
    edge = (distance < 3.0) & solid & own_side
    walked = ndimage.binary_propagation(core, mask=white | core | edge)
    # Readers outline oedema a little generously and without single-voxel holes.
    smooth = frame.blur(walked, 1.1) > 0.42
    oedema = np.asarray(smooth & solid & own_side & ~core, np.bool_)
    return main_part(oedema | core) & ~core  # no islands


def _distance_inside(frame: HeadFrame, mask: BoolArray) -> FloatArray:
    """Millimetres from each voxel of a mask to the nearest one outside it, 0 elsewhere."""
    out = np.zeros(mask.shape, np.float32)
    for box in ndimage.find_objects(mask.astype(np.uint8)):
        out[box] = ndimage.distance_transform_edt(np.pad(mask[box], 1), sampling=frame.step)[
            1:-1, 1:-1, 1:-1
        ]
    return out
