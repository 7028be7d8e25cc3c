"""What tissue and tumour look like in T1, T1ce, T2 and FLAIR: the numbers, and how they are drawn.

Unit: the standard deviation of the healthy brain in that contrast, mean 0 (what z-scoring gives).
The tissue means are those of usual spin and gradient echo sequences; the tumour's ranges are those
seen in the nine training cases of the default model, widened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from model_core.types import CONTRASTS, Contrast, Label
from training.synthesis import fields
from training.synthesis.anatomy import Tissue
from training.synthesis.tumour import Kind

#                 outside white cortex deep pallidum  CSF  cb.white cb.cortex stem vessel
_MEANS: Final[dict[Contrast, tuple[float, ...]]] = {
    "t1":    (0.0,  1.05, -0.05,  0.40,  0.75, -2.2,  0.90, -0.10,  0.75, -1.0),
    "t1ce":  (0.0,  0.95, -0.05,  0.35,  0.65, -2.0,  0.80,  0.00,  0.65,  2.2),
    "t2":    (0.0, -0.65,  0.25, -0.10, -0.90,  2.8, -0.50,  0.20, -0.30,  0.5),
    "flair": (0.0, -0.05,  0.45,  0.35, -0.10, -1.9, -0.10,  0.30,  0.00, -0.3),
}  # fmt: skip
_SPREAD: Final = 0.18
"""Of a tissue's mean from study to study; twice that for CSF, half of it shared by T1 and T1ce."""
_GRAIN: Final = (0.0, 0.20, 0.28, 0.25, 0.25, 0.40, 0.25, 0.30, 0.22, 0.60)
_OFFSET: Final = 4.0
"""Added before a bias field multiplies: an air-like zero lies below every tissue."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One part of a tumour in one contrast."""

    level: float
    grain: float
    """Standard deviation inside the part."""


TumourLook = dict[Label, dict[Contrast, Look]]


def draw_tumour(rng: np.random.Generator, kind: Kind) -> TumourLook:
    """Levels of ED, NCR and ET in every contrast; the parts' levels depend on each other."""
    white = {contrast: _MEANS[contrast][Tissue.WHITE] for contrast in CONTRASTS}
    oedema: dict[Contrast, float] = {
        "t1": white["t1"] - rng.uniform(0.2, 1.2),
        "t1ce": white["t1ce"] - rng.uniform(0.2, 1.2),
        "t2": rng.uniform(0.3, 1.5),
        "flair": rng.uniform(0.9, 2.8),
    }
    core = _necrosis(rng, oedema) if kind == "enhancing" else _plain_core(rng, oedema)
    rim = {
        "t1": oedema["t1"] + rng.uniform(-0.5, 0.5),
        "t1ce": rng.uniform(1.0, 3.6),
        "t2": oedema["t2"] + rng.uniform(-0.5, 0.6),
        "flair": oedema["flair"] + rng.uniform(-0.9, 0.6),
    }
    rim_grain = {"t1": 0.45, "t1ce": rng.uniform(0.4, 1.6), "t2": 0.45, "flair": 0.55}
    core_grain = rng.uniform(0.25, 0.65)
    return {
        Label.ED: {c: Look(level=oedema[c], grain=rng.uniform(0.25, 0.55)) for c in CONTRASTS},
        Label.NCR: {c: Look(level=core[c], grain=core_grain) for c in CONTRASTS},
        Label.ET: {c: Look(level=rim[c], grain=rim_grain[c]) for c in CONTRASTS},
    }


def draw_images(
    rng: np.random.Generator, tissues: Tensor, labels: Tensor, kind: Kind
) -> dict[Contrast, Tensor]:
    """Sharp images without faults, each (X, Y, Z), in the unit above; nothing outside is masked.

    Args:
        rng: decides everything.
        tissues: `Tissue` values (X, Y, Z), int64.
        labels: internal labels (X, Y, Z), int64; 0 where there is no tumour.
        kind: of the tumour.
    """
    shape = _shape(tissues)
    look = draw_tumour(rng, kind)
    weights = _weights(rng, labels)
    shared = rng.normal(0, _SPREAD, len(Tissue))
    spots = _white_matter_spots(rng, tissues)
    images: dict[Contrast, Tensor] = {}
    for contrast in CONTRASTS:
        own = rng.normal(0, _SPREAD, len(Tissue))
        shift = (shared + own) / 2 if contrast in ("t1", "t1ce") else own
        shift[Tissue.CSF] *= 2
        means = torch.tensor(np.array(_MEANS[contrast]) + shift, dtype=torch.float32)
        image = means[tissues] + torch.tensor(_GRAIN)[tissues] * fields.texture(rng, shape)
        image = _with_normal_variants(rng, image, contrast, tissues=tissues, spots=spots)
        for label, weight in weights.items():
            part = look[label][contrast]
            inside = part.level + part.grain * fields.texture(rng, shape)
            image = image + weight * (inside - image)
        images[contrast] = image
    return images


def with_bias(rng: np.random.Generator, image: Tensor) -> Tensor:
    """The image under a smooth multiplicative field of up to a quarter."""
    strength = rng.uniform(0.0, 0.12)
    field = torch.exp(strength * fields.smooth_noise(rng, _shape(image), 70.0))
    return (image + _OFFSET) * field - _OFFSET


def _necrosis(rng: np.random.Generator, oedema: dict[Contrast, float]) -> dict[Contrast, float]:
    t1 = oedema["t1"] + rng.uniform(-1.0, 0.2)
    return {
        "t1": t1,
        "t1ce": t1 + rng.uniform(-0.8, 0.4),
        "t2": oedema["t2"] + rng.uniform(-0.2, 1.6),
        "flair": oedema["flair"] + rng.uniform(-1.3, 1.0),
    }


def _plain_core(rng: np.random.Generator, oedema: dict[Contrast, float]) -> dict[Contrast, float]:
    """Solid tumour without enhancement: darker than oedema on T1, brighter on T2.

    One in five is hardly told from it.
    """
    apart = 0.25 if rng.random() < 0.2 else 1.0
    t1 = oedema["t1"] - apart * rng.uniform(0.2, 1.1)
    cystic = rng.random() < 0.15
    return {
        "t1": t1,
        "t1ce": t1 + rng.uniform(-0.3, 0.15),
        "t2": oedema["t2"] + apart * rng.uniform(0.3, 2.0),
        "flair": oedema["flair"] + (rng.uniform(-2.0, -0.8) if cystic else rng.uniform(-0.4, 0.9)),
    }


def _weights(rng: np.random.Generator, labels: Tensor) -> dict[Label, Tensor]:
    """How much of each voxel is which part: soft borders, oedema thinning out and uneven."""
    whole = (labels > 0).float()
    depth = fields.blur(whole, (rng.uniform(1.5, 4.0),) * 3)
    patchy = 0.12 * fields.smooth_noise(rng, _shape(labels), 7.0)
    thin = rng.uniform(0.45, 0.9)
    oedema = whole * (thin + (1 - thin) * ((depth - 0.5) * 2).clamp(0, 1) + patchy).clamp(0.2, 1)
    soft = rng.uniform(0.3, 0.9)
    return {
        Label.ED: fields.blur(oedema, (rng.uniform(0.5, 1.2),) * 3),
        Label.NCR: fields.blur((labels == Label.NCR).float(), (soft,) * 3),
        Label.ET: fields.blur((labels == Label.ET).float(), (min(soft, 0.6),) * 3),
    }


def _white_matter_spots(rng: np.random.Generator, tissues: Tensor) -> Tensor | None:
    """Bright spots of ageing white matter: no tumour, and not to be taken for one."""
    if rng.random() > 0.4:
        return None
    spots = fields.smooth_noise(rng, _shape(tissues), rng.uniform(4, 8)) > rng.uniform(2.0, 2.8)
    return fields.blur((spots & (tissues == Tissue.WHITE)).float(), (0.8,) * 3)


def _with_normal_variants(
    rng: np.random.Generator,
    image: Tensor,
    contrast: Contrast,
    *,
    tissues: Tensor,
    spots: Tensor | None,
) -> Tensor:
    if spots is not None and contrast in ("t2", "flair"):
        image = image + spots * (rng.uniform(0.6, 1.8) if contrast == "flair" else 0.7)
    if contrast == "t1ce":
        thin = fields.smooth_noise(rng, _shape(tissues), 3.5) > rng.uniform(1.6, 2.4)
        vessels = fields.blur((thin & (tissues == Tissue.CSF)).float(), (0.5,) * 3)
        image = image + vessels * rng.uniform(1.5, 5.0)
    return image


def _shape(values: Tensor) -> tuple[int, int, int]:
    x, y, z = values.shape
    return x, y, z
