"""Tumour masks read, made into other tumours, and laid into a head.

A mask is a real outline without its image. What is drawn anew: its side, place, rotation, size and
shape, and its *kind*: ``enhancing`` as outlined; ``scant``, a core with a few enhancing foci;
``plain``, a core without enhancement, wider than an enhancing one, as in most low-grade gliomas.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from model_core.imaging.nifti import read_nifti
from model_core.labels import from_scheme
from model_core.types import Label, LabelScheme, Shape3
from training.synthesis import fields
from training.synthesis.anatomy import ORIENTATION, Tissue

Kind = Literal["enhancing", "scant", "plain"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
KIND_SHARES: Final = (0.8, 0.08, 0.12)
ATTEMPTS: Final = 12
LEAST_INSIDE: Final = 0.7
"""Share of the tumour that must lie in solid brain; else another place is drawn."""
LEAST_VOXELS: Final = 400
_ATLAS_BOX: Final = ((2.0, 140.0), (28.0, 200.0), (52.0, 188.0))
"""First and last voxel of a typical brain in the BraTS atlas space (240×240×155, turned to SPL)."""


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A tumour cut out of its grid.

    Args:
        labels: internal labels (X, Y, Z), a box around the tumour.
        place: its centre in the brain, -1 … 1 along each axis of `ORIENTATION`.
    """

    labels: NDArray[np.uint8]
    place: tuple[float, float, float]


def read_mask(path: Path, scheme: LabelScheme = "brats2021") -> Mask | None:
    """A tumour mask on the BraTS atlas grid; ``None`` if it holds less than `LEAST_VOXELS`."""
    volume = read_nifti(path, argument="mask").reoriented(ORIENTATION)
    labels = from_scheme(np.asarray(volume.array), scheme, argument="mask")
    if np.count_nonzero(labels) < LEAST_VOXELS:
        return None
    box = ndimage.find_objects((labels > 0).astype(np.uint8))[0]
    places = [
        ((part.start + part.stop) / 2 - (low + high) / 2) / ((high - low) / 2)
        for part, (low, high) in zip(box, _ATLAS_BOX, strict=True)
    ]
    x, y, z = (float(np.clip(place, -0.8, 0.8)) for place in places)
    return Mask(labels=np.ascontiguousarray(labels[box]), place=(x, y, z))


def draw_kind(rng: np.random.Generator) -> Kind:
    """A kind, by `KIND_SHARES`."""
    return KINDS[rng.choice(len(KINDS), p=KIND_SHARES)]


def of_kind(rng: np.random.Generator, labels: NDArray[np.uint8], kind: Kind) -> NDArray[np.uint8]:
    """The mask as a tumour of `kind`: which part enhances, and how wide the core is."""
    if kind == "enhancing":
        return labels
    changed = labels.copy()
    changed[labels == Label.ET] = Label.NCR
    core = (changed == Label.NCR).astype(np.float32)
    near_core = ndimage.gaussian_filter(core, rng.uniform(2, 6))
    changed[(near_core > rng.uniform(0.15, 0.6)) & (labels > 0)] = Label.NCR
    if kind == "scant" and labels.size:
        x, y, z = changed.shape
        foci = fields.smooth_noise(rng, (x, y, z), rng.uniform(4, 9)).numpy()
        changed[(foci > rng.uniform(1.4, 2.2)) & (changed == Label.NCR)] = Label.ET
    return changed


def lay_into(
    rng: np.random.Generator, mask: Mask, tissues: NDArray[np.uint8], kind: Kind
) -> NDArray[np.uint8] | None:
    """The tumour's internal labels on the head's grid; ``None`` if no place was found for it."""
    labels = of_kind(rng, mask.labels, kind)
    solid = (tissues != Tissue.OUTSIDE) & ~_wide(tissues == Tissue.CSF)
    box = ndimage.find_objects((tissues > 0).astype(np.uint8))[0]
    for _ in range(ATTEMPTS):
        laid = _lay(rng, labels, mask.place, _shape(tissues), box)
        count = int(np.count_nonzero(laid))
        if count and np.count_nonzero(laid[solid]) >= max(LEAST_INSIDE * count, LEAST_VOXELS):
            laid[~solid] = 0
            return laid
    return None


def _lay(
    rng: np.random.Generator,
    labels: NDArray[np.uint8],
    place: tuple[float, float, float],
    shape: Shape3,
    box: tuple[slice, ...],
) -> NDArray[np.uint8]:
    side = rng.choice((-1.0, 1.0))
    wanted = np.array(place) * (1.0, 1.0, side) + rng.normal(0, 0.12, 3)
    middle = [(part.start + part.stop) / 2 for part in box]
    half = [(part.stop - part.start) / 2 for part in box]
    centre = torch.tensor(np.array(middle) + np.clip(wanted, -0.85, 0.85) * half).float()
    source = torch.from_numpy(labels.astype(np.int16))
    if side < 0:
        source = source.flip(2)
    matrix = fields.affine_matrix(rng, degrees=20.0, scale=(0.75, 1.3))
    own = (torch.tensor(labels.shape).float() - 1) / 2
    motion = fields.affine_motion(matrix, shape, centre, own)
    motion = motion + fields.elastic_motion(rng, shape, scale=18.0, size=rng.uniform(0, 2.5))
    laid: NDArray[np.uint8] = fields.warp(source, motion, nearest=True).numpy().astype(np.uint8)
    return laid


def _wide(csf: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Ventricles and cisterns; a sulcus inside a tumour belongs to it."""
    opened: NDArray[np.bool_] = ndimage.binary_opening(csf, iterations=2)
    return opened


def _shape(array: NDArray[np.uint8]) -> Shape3:
    x, y, z = array.shape
    return x, y, z
