"""From tissues to the four contrasts: appearance, texture, bias field, blur and noise.

Appearance is written in standard scores: how many standard deviations of the whole brain a tissue
lies from the brain's mean, which is what a network sees after normalisation over non-zero voxels.
The scores are typical of enhancing gliomas in public skull-stripped data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from model_core.phantom.anatomy import Anatomy, Tissue
from model_core.phantom.frame import FloatArray, HeadFrame, smooth_noise
from model_core.phantom.lesion import Lesion
from model_core.types import CONTRASTS, Contrast, Label


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """How one contrast shows everything, in standard scores; spreads are one deviation.

    Attributes:
        tissue: score of each healthy tissue.
        oedema, rim, necrosis: score and spread of the lesion's parts.
        mean, deviation: of the brain, in scanner units; they fix the int16 scale.
        noise: deviation of the Rician noise.
        through_plane: blur across slices, millimetres (clinical slices are thicker than 1 mm).
    """

    tissue: Mapping[Tissue, float]
    oedema: tuple[float, float]
    rim: tuple[float, float]
    necrosis: tuple[float, float]
    mean: float
    deviation: float
    noise: float
    through_plane: float


def _tissues(*scores: float) -> dict[Tissue, float]:
    """Scores in the order of `Tissue`, `Tissue.OUTSIDE` left out."""
    return dict(zip(list(Tissue)[1:], scores, strict=True))


#        meninges  csf  ventr  grey  white  deep  pallid cereb  stem  choroid
APPEARANCE: Final[Mapping[Contrast, Appearance]] = {
    "t1": Appearance(
        tissue=_tissues(-1.9, -2.2, -2.6, -0.25, 0.95, 0.25, 0.65, 0.05, 0.75, -1.2),
        oedema=(-0.1, 0.25),
        rim=(0.15, 0.45),
        necrosis=(-0.75, 0.45),
        mean=1150.0,
        deviation=290.0,
        noise=0.11,
        through_plane=0.7,
    ),
    "t1ce": Appearance(
        tissue=_tissues(-1.6, -1.75, -2.1, -0.15, 0.5, 0.15, 0.35, 0.0, 0.4, 2.6),
        oedema=(-0.1, 0.22),
        rim=(2.75, 1.15),
        necrosis=(-0.5, 0.5),
        mean=830.0,
        deviation=215.0,
        noise=0.10,
        through_plane=0.6,
    ),
    "t2": Appearance(
        tissue=_tissues(0.1, 2.6, 3.3, 0.0, -0.72, -0.35, -0.85, -0.15, -0.55, 1.8),
        oedema=(1.0, 0.35),
        rim=(0.6, 0.45),
        necrosis=(1.6, 0.6),
        mean=2300.0,
        deviation=1050.0,
        noise=0.10,
        through_plane=1.0,
    ),
    "flair": Appearance(
        tissue=_tissues(-1.5, -1.6, -2.3, 0.28, 0.0, 0.2, -0.25, 0.12, 0.05, 0.3),
        oedema=(2.0, 0.45),
        rim=(1.35, 0.5),
        necrosis=(0.6, 0.6),
        mean=940.0,
        deviation=195.0,
        noise=0.12,
        through_plane=1.0,
    ),
}


def render_contrasts(
    frame: HeadFrame, rng: np.random.Generator, anatomy: Anatomy, lesion: Lesion
) -> dict[Contrast, npt.NDArray[np.int16]]:
    """Render all four contrasts over the brain box; background is 0, brain is at least 1."""
    weights = _lesion_weights(frame, lesion)
    shared = smooth_noise(rng, 7.0).on(frame)
    coarse = smooth_noise(rng, 26.0).on(frame)
    out: dict[Contrast, npt.NDArray[np.int16]] = {}
    for contrast in CONTRASTS:
        own = smooth_noise(rng, 9.0).on(frame)
        texture = 0.55 * shared + 0.5 * own + 0.65 * coarse
        out[contrast] = _render(
            frame, rng, APPEARANCE[contrast], anatomy=anatomy, weights=weights, texture=texture
        )
    return out


def _lesion_weights(frame: HeadFrame, lesion: Lesion) -> dict[Label, FloatArray]:
    """Soft membership of the lesion's parts: labels blurred to their partial volume."""
    softness = {Label.ED: 0.9, Label.NCR: 0.8, Label.ET: 0.6}
    weights = {label: frame.blur(lesion.labels == label, mm) for label, mm in softness.items()}
    weights[Label.ED] *= np.clip(1.08 - 0.016 * lesion.core_distance, 0.55, 1.0)  # fades outwards
    return weights


def _render(
    frame: HeadFrame,
    rng: np.random.Generator,
    look: Appearance,
    *,
    anatomy: Anatomy,
    weights: Mapping[Label, FloatArray],
    texture: FloatArray,
) -> npt.NDArray[np.int16]:
    """One contrast: tissue scores, lesion, blur, bias and noise, in scanner units."""
    table = np.array([look.tissue.get(kind, look.tissue[Tissue.MENINGES]) for kind in Tissue])
    score = table.astype(np.float32)[anatomy.tissue]
    score += anatomy.sulcal * (look.tissue[Tissue.CSF] - score)
    score += 0.10 * texture
    brain = anatomy.tissue != Tissue.OUTSIDE
    score = (score - score[brain].mean()) / score[brain].std()
    parts = ((Label.ED, look.oedema), (Label.NCR, look.necrosis), (Label.ET, look.rim))
    for label, (mean, spread) in parts:
        score += weights[label] * (mean + spread * texture - score)
    sigma = frame.sigma(0.55)
    thick = (sigma[0], sigma[1], look.through_plane / frame.step[2])
    score = ndimage.gaussian_filter(score, thick, mode="nearest", truncate=3.0)
    bias = np.exp(0.045 * smooth_noise(rng, 150.0).on(frame))
    signal = np.maximum(look.mean + look.deviation * score, 0.0) * bias
    return acquire(rng, signal, look.noise * look.deviation, anatomy.tissue != Tissue.OUTSIDE)


def acquire(
    rng: np.random.Generator, signal: FloatArray, noise: float, mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int16]:
    """Magnitude of a complex signal with noise in both channels (Rician), rounded."""
    real, imaginary = (
        noise * rng.standard_normal(signal.shape, dtype=np.float32) for _ in range(2)
    )
    magnitude = np.sqrt((signal + real) ** 2 + imaginary**2)
    return np.where(mask, np.clip(np.rint(magnitude), 1, 32767), 0).astype(np.int16)
