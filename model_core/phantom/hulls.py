"""The outer shape of the brain: its solid parts and the fissures between them.

Coordinates are head millimetres, see `model_core.phantom.frame`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_core.phantom.frame import BoolArray, HeadFrame, smooth_noise
from model_core.phantom.solids import Coordinates, ellipsoid, mirrored


@dataclass(frozen=True)
class Hulls:
    """Solid parts, before sulci are cut into them."""

    cerebrum: BoolArray
    cerebellum: BoolArray
    brainstem: BoolArray


def find_hulls(at: Coordinates) -> Hulls:
    """The smooth solids of cerebrum, cerebellum and brainstem."""
    x, y, z = at
    folded = mirrored(at)
    # An egg: narrower in front, flat below, its base rising towards the frontal pole.
    width = 66.0 - 0.0006 * np.clip(y + 22.0, 0.0, None) ** 2
    below = 23.0 - 5.0 / (1.0 + np.exp(-(y - 12.0) / 6.0))
    height = np.where(z > 0.0, 63.0, below)
    level = np.abs(x / width) ** 2.35 + np.abs((y + 1.0) / 86.0) ** 2.6 + np.abs(z / height) ** 2.35
    upper = level < 1.0
    tilted = (folded[0], y, z + 0.22 * (y + 5.0))
    temporal = ellipsoid(tilted, (42.0, -6.0, -19.0), (22.5, 46.0, 22.0), power=2.4) < 1.0
    tent = -21.0 + 19.0 * np.exp(-np.abs(x) / 26.0) + 0.28 * (y + 48.0)
    tent = tent - 1.1 * np.clip(y + 44.0, 0.0, None)  # the temporal lobes pass in front of it
    cerebrum = (upper | temporal) & (z > tent)
    cerebellum = ellipsoid(folded, (18.0, -51.0, -35.0), (37.0, 29.0, 28.0), power=2.2) < 1.0
    cerebellum &= z < tent - 1.2
    stem = _brainstem(at)
    return Hulls(cerebrum, cerebellum & ~stem & ~cerebrum, stem & ~(cerebrum & (z > -9.0)))


def _brainstem(at: Coordinates) -> BoolArray:
    """Midbrain, pons and medulla: a slanting elliptical column with the pons' belly."""
    x, y, z = at
    axis = -24.0 + 0.10 * (z + 25.0)
    belly = np.exp(-(((z + 30.0) / 9.5) ** 2))
    wide = (
        11.0
        + 8.0 * belly
        - 3.5 / (1.0 + np.exp((z + 50.0) / 3.0))
        + 6 / (1 + np.exp(-(z + 12) / 3))
    )
    deep = 9.0 + 5.0 * belly - 2.0 / (1.0 + np.exp((z + 50.0) / 3.0))
    inside = (x / wide) ** 2 + ((y - axis - 2.0 * belly) / deep) ** 2 < 1.0
    return np.asarray(inside & (z < 2.0) & (z > -68.0), np.bool_)


def find_fissures(
    frame: HeadFrame, rng: np.random.Generator, surface: Coordinates, inner: Coordinates
) -> BoolArray:
    """Interhemispheric and Sylvian fissures, as thin sheets of fluid."""
    x, y, z = inner
    wave = 1.2 * smooth_noise(rng, 40.0).on(frame)
    opening = 1.0 + 0.35 * smooth_noise(rng, 18.0).on(frame)
    core = ((y + 3.0) / 46.0) ** 2 + ((z - 2.0) / 27.0) ** 2
    core = np.where(z < 0.0, ((y + 3.0) / 40.0) ** 2 + (z / 40.0) ** 2, core)
    midline = (np.abs(x - wave) < np.clip(0.75 * opening, 0.55, 1.5)) & (core > 1.0)
    lateral = np.abs(surface[0])
    rise = -9.0 - 0.30 * (surface[1] - 5.0) + 2.0 * wave
    gape = 0.8 + 0.09 * np.clip(46.0 - lateral, 0.0, 10.0) + 0.5 * (opening - 1.0)
    span = (surface[1] < 36.0) & (surface[1] > -38.0)
    sheet = (np.abs(surface[2] - rise) < gape) & (lateral > 38.0 + 0.8 * wave) & span
    insula = np.abs(lateral - 39.0 - wave + 0.010 * (surface[1] - 2.0) ** 2) < 0.6 * opening
    height = surface[2] - rise
    insula &= (height > -4.0) & (height < 18.0) & (surface[1] < 26.0) & (surface[1] > -24.0)
    return np.asarray(midline | sheet | insula, np.bool_)
