"""Whole synthetic studies: a seed in, a study with its truth out; and as training cases, cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model_core.errors import OptionError
from model_core.imaging.study import Study, make_study
from model_core.imaging.volume import Volume
from model_core.types import CONTRASTS
from training.synthesis import fields
from training.synthesis.anatomy import Tissue, read_head
from training.synthesis.appearance import draw_images
from training.synthesis.faults import acquire
from training.synthesis.tumour import Mask, draw_kind, lay_into, read_mask

_SPL_TO_RAS = np.array(
    [[0.0, 0.0, -1.0, 0.0], [0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)
"""Affine of a 1 mm grid whose axes run to S, P and L."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What studies are made from: file lists, so that a process holds one head at a time."""

    heads: tuple[Path, ...]
    masks: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class SyntheticStudy:
    """A study and its truth, internal labels (X, Y, Z) on the study's grid."""

    study: Study
    labels: NDArray[np.uint8]


def find_material(folder: Path) -> Material:
    """Anatomical label maps in ``FOLDER/labels`` and tumour masks in ``FOLDER/masks`` (NIfTI).

    Raises:
        OptionError: one of the two holds none.
    """
    found = {name: tuple(sorted((folder / name).glob("*.nii*"))) for name in ("labels", "masks")}
    for name, files in found.items():
        if not files:
            raise OptionError(
                "synthesis",
                expected=f"NIfTI files in its folder {name!r}",
                got="none",
                way_out="Put anatomical label maps into labels/ and tumour masks into masks/.",
            )
    return Material(heads=found["labels"], masks=found["masks"])


def draw_study(material: Material, seed: int) -> SyntheticStudy:
    """The study of a seed; the same on every machine up to floating-point rounding."""
    rng = np.random.default_rng((20_23, seed))
    while True:
        tissues = _deformed(rng, read_head(_one(rng, material.heads)))
        mask = read_mask(_one(rng, material.masks))
        drawn = None if mask is None else _with_tumour(rng, tissues, mask)
        if drawn is not None:
            return drawn


def _with_tumour(
    rng: np.random.Generator, tissues: NDArray[np.uint8], mask: Mask
) -> SyntheticStudy | None:
    kind = draw_kind(rng)
    laid = lay_into(rng, mask, tissues, kind)
    if laid is None:
        return None
    labels = torch.from_numpy(laid.astype(np.int64))
    pushed = _pushed(rng, torch.from_numpy(tissues.astype(np.int64)), labels)
    brain = (pushed != Tissue.OUTSIDE) | (labels > 0)
    images = acquire(rng, draw_images(rng, pushed, labels, kind), brain)
    volumes = {c: Volume(np.asarray(images[c], np.float32), _SPL_TO_RAS) for c in CONTRASTS}
    return SyntheticStudy(study=make_study(volumes), labels=laid)


def _deformed(rng: np.random.Generator, tissues: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Another head: turned, scaled and bent; its sides exchanged in half of the draws."""
    x, y, z = tissues.shape
    values = torch.from_numpy(tissues.astype(np.int16))
    if rng.random() < 0.5:
        values = values.flip(2)
    middle = (torch.tensor((x, y, z)).float() - 1) / 2
    matrix = fields.affine_matrix(rng, degrees=8.0, scale=(0.9, 1.12))
    motion = fields.affine_motion(matrix, (x, y, z), middle, middle)
    motion = motion + fields.elastic_motion(rng, (x, y, z), scale=24.0, size=rng.uniform(0.5, 2.5))
    moved: NDArray[np.uint8] = fields.warp(values, motion, nearest=True).numpy().astype(np.uint8)
    return moved


def _pushed(rng: np.random.Generator, tissues: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mass effect: tissue pushed away from the core (from the whole tumour where it has none)."""
    core = (labels == 1) | (labels == 3)
    source = core if bool(core.any()) else labels > 0
    centre = source.nonzero().float().mean(0)
    radius = 1.6 * float(source.sum() * 3 / (4 * np.pi)) ** (1 / 3) + 6
    x, y, z = tissues.shape
    motion = fields.swelling_motion((x, y, z), centre, radius=radius, strength=rng.uniform(0, 0.35))
    pushed = fields.warp(tissues, motion, nearest=True)
    # tissue moves inside the skull: what was brain stays brain
    return torch.where((pushed == Tissue.OUTSIDE) & (tissues != Tissue.OUTSIDE), tissues, pushed)


def _one(rng: np.random.Generator, files: Sequence[Path]) -> Path:
    return files[int(rng.integers(len(files)))]
