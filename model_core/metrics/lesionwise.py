"""Lesion-wise Dice and HD95 as BraTS 2023 scores them: every lesion counts the same.

For one region (a mask of the truth and one of the prediction):

1. The truth is dilated `dilation` times with the 18-neighbourhood. Truth voxels whose dilations
   join (26-connected) are one *lesion*.
2. All predicted components (26-connected) that touch a lesion's dilation are together its
   prediction; one component may serve several lesions. Each lesion gets a Dice and an
   area-weighted HD95 (`model_core.metrics.hausdorff.surface_hd95`); no prediction → 0 and
   `PENALTY_MM`.
3. Lesions up to `min_lesion_mm3` are left out of the mean, whether found or not; a component that
   touches one of them is no false positive either.
4. Every predicted component, however small, that touches no lesion is a *false positive*: it
   enters the mean with Dice 0 and `PENALTY_MM`.

Nothing to score (no lesion above the threshold, no false positive) → Dice 1, HD95 0.
Source: the challenge's published evaluation (Synapse syn51156910); the glioma settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_core.components import bounding_box, connected_components
from model_core.errors import OptionError
from model_core.labels import Mask
from model_core.metrics.hausdorff import surface_hd95
from model_core.metrics.overlap import dice, require_masks
from model_core.types import Spacing

PENALTY_MM: Final = 374.0
"""HD95 of a lesion that was missed and of a false positive."""
_EIGHTEEN: Final = ndimage.generate_binary_structure(3, 2)

_Ids = NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class LesionRules:
    """What differs between the challenges of BraTS 2023; the defaults are adult glioma."""

    dilation: int = 3
    """Steps of the 18-neighbourhood within which truth components are one lesion (MEN, MET: 1)."""
    min_lesion_mm3: float = 50.0
    """Truth lesions up to this volume are not scored (MET: 2)."""

    def __post_init__(self) -> None:
        if self.dilation < 1 or not self.min_lesion_mm3 >= 0:
            raise OptionError(
                "rules",
                expected="a dilation of at least 1 step and a threshold of at least 0 mm³",
                got=f"{self.dilation} steps, {self.min_lesion_mm3:g} mm³",
                way_out="Adult glioma uses 3 steps and 50 mm³.",
            )


PLAIN_RULES: Final = LesionRules(dilation=1, min_lesion_mm3=0.0)
"""Where no challenge has set rules: what lies within two voxels is one lesion, and each counts."""


@dataclass(frozen=True, kw_only=True)
class LesionScore:
    """One scored lesion of the truth."""

    truth_mm3: float
    dice: float
    hd95_mm: float
    found: bool


@dataclass(frozen=True, kw_only=True)
class LesionwiseScore:
    """The lesion-wise scores of one region in one case."""

    dice: float
    hd95_mm: float
    lesions: tuple[LesionScore, ...]
    """Those above the threshold; the others are only counted."""
    unscored: int
    false_positives: int

    @property
    def found(self) -> int:
        """Scored lesions that some prediction touches."""
        return sum(lesion.found for lesion in self.lesions)

    @property
    def missed(self) -> int:
        """Scored lesions that no prediction touches."""
        return len(self.lesions) - self.found


def lesionwise(
    pred: Mask, truth: Mask, spacing_mm: Spacing, *, rules: LesionRules | None = None
) -> LesionwiseScore:
    """Score `pred` against `truth` lesion by lesion.

    Args:
        pred: boolean 3-D mask.
        truth: boolean 3-D mask of the same shape.
        spacing_mm: voxel size along the array axes.
        rules: dilation and threshold; adult glioma when left out.

    Raises:
        InputError: not two boolean masks of one shape.
    """
    require_masks(pred, truth)
    rules = rules or LesionRules()
    if not (pred.any() or truth.any()):
        return LesionwiseScore(dice=1.0, hd95_mm=0.0, lesions=(), unscored=0, false_positives=0)
    box = _padded_box(pred | truth, rules.dilation)
    pred, truth = np.ascontiguousarray(pred[box]), np.ascontiguousarray(truth[box])
    reach = ndimage.binary_dilation(truth, _EIGHTEEN, iterations=rules.dilation)
    zones, zone_count = connected_components(reach, 26)
    predicted, predicted_count = connected_components(pred, 26)
    partners = _touching(zones, predicted, zone_count)
    lesions = [
        _score_lesion(_members(predicted, parts), truth & (zones == zone), spacing_mm)
        for zone, parts in partners.items()
    ]
    touched = {part for parts in partners.values() for part in parts}
    return _combine(lesions, predicted_count - len(touched), rules)


def _padded_box(mask: Mask, margin: int) -> tuple[slice, ...]:
    """A box with room for the dilation, cut at the volume's edge as the dilation itself would."""
    return tuple(slice(max(0, cut.start - margin), cut.stop + margin) for cut in bounding_box(mask))


def _touching(zones: _Ids, predicted: _Ids, count: int) -> dict[int, list[int]]:
    """For every zone, the predicted components that share a voxel with it."""
    partners: dict[int, list[int]] = {zone: [] for zone in range(1, count + 1)}
    shared = (zones > 0) & (predicted > 0)
    pairs = np.unique(np.stack([zones[shared], predicted[shared]]), axis=1)
    for zone, part in pairs.T:
        partners[int(zone)].append(int(part))
    return partners


def _members(components: _Ids, wanted: list[int]) -> Mask:
    chosen = np.zeros(int(components.max()) + 1, dtype=np.bool_)
    chosen[wanted] = True
    return np.asarray(chosen[components])


def _score_lesion(pred: Mask, truth: Mask, spacing_mm: Spacing) -> LesionScore:
    found = bool(pred.any())
    return LesionScore(
        truth_mm3=float(np.count_nonzero(truth)) * math.prod(spacing_mm),
        dice=dice(pred, truth),
        hd95_mm=surface_hd95(pred, truth, spacing_mm) if found else PENALTY_MM,
        found=found,
    )


def _combine(
    lesions: list[LesionScore], false_positives: int, rules: LesionRules
) -> LesionwiseScore:
    scored = tuple(lesion for lesion in lesions if lesion.truth_mm3 > rules.min_lesion_mm3)
    total = len(scored) + false_positives
    distance = sum(lesion.hd95_mm for lesion in scored) + PENALTY_MM * false_positives
    return LesionwiseScore(
        dice=sum(lesion.dice for lesion in scored) / total if total else 1.0,
        hd95_mm=distance / total if total else 0.0,
        lesions=scored,
        unscored=len(lesions) - len(scored),
        false_positives=false_positives,
    )
