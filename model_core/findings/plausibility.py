"""Whether a label map can be a tumour in this brain: its size, its parts, where they lie.

The *brain* is where some contrast is not 0, which needs skull-stripped images. Shares are of
volumes, so nothing depends on the voxel size. The limits are wide: they were chosen so that no true
label map of the reference cases is flagged (`docs/concepts/quality.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from model_core.components import connected_components
from model_core.findings.flags import Flag
from model_core.labels import LabelArray, Mask, labelled_box
from model_core.types import Label

_TOUCH: Final = ndimage.generate_binary_structure(3, 3)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is still plausible.

    Attributes:
        tumour_share: WT of the brain's volume.
        parts: 26-connected parts of WT.
        outside_share: of the labelled voxels, those where every contrast is 0.
        lone_share: of ET, what touches neither NCR nor ED.
        lone_least_ml: less lone ET than this is not worth a word.
        brain_ml: least and most volume of a brain.
    """

    tumour_share: float = 0.30
    parts: int = 50
    outside_share: float = 0.01
    lone_share: float = 0.5
    lone_least_ml: float = 0.05
    brain_ml: tuple[float, float] = (900.0, 2000.0)


def check_plausible(
    labels: LabelArray, brain: Mask, voxel_ml: float, limits: Limits
) -> tuple[Flag, ...]:
    """Hold a label map against its brain.

    Args:
        labels: internal labels (X, Y, Z).
        brain: where some contrast is not 0, the same shape.
        voxel_ml: volume of one voxel.
        limits: what is still plausible.
    """
    flags = _brain_volume(brain, voxel_ml, limits)
    if not labels.any():
        return (*flags, nothing_found())
    return (
        *flags,
        *_too_large(labels, brain, limits),
        *_outside(labels, brain, limits),
        *at_border(labels),
        *_many_parts(labels, limits),
        *_lone_enhancement(labels, voxel_ml, limits),
    )


def _brain_volume(brain: Mask, voxel_ml: float, limits: Limits) -> tuple[Flag, ...]:
    volume = float(np.count_nonzero(brain)) * voxel_ml
    least, most = limits.brain_ml
    if least <= volume <= most:
        return ()
    why = (
        "the skull may not have been removed"
        if volume > most
        else "a part of it may have been cut off"
    )
    return (
        Flag(
            code="brain-volume",
            severity="review",
            reason=f"The images show {volume:.0f} mL that are not 0, and a brain has {least:.0f} "
            f"to {most:.0f} mL: {why}.",
            value=volume,
            limit=most if volume > most else least,
        ),
    )


def nothing_found(
    reason: str = "No tumour was found. Check that the contrasts are not mixed up.",
) -> Flag:
    """Say that no voxel is labelled."""
    return Flag(
        code="nothing-found",
        severity="review",
        reason=reason,
        value=0.0,
        limit=0.0,
        subject="WT",
    )


def _too_large(labels: LabelArray, brain: Mask, limits: Limits) -> tuple[Flag, ...]:
    share = float(np.count_nonzero(labels)) / max(1, int(np.count_nonzero(brain)))
    if share <= limits.tumour_share:
        return ()
    return (
        Flag(
            code="tumour-too-large",
            severity="review",
            reason=f"The whole tumour takes {share:.0%} of the brain.",
            value=share,
            limit=limits.tumour_share,
            subject="WT",
        ),
    )


def _outside(labels: LabelArray, brain: Mask, limits: Limits) -> tuple[Flag, ...]:
    tumour = labels != Label.BACKGROUND
    share = float(np.count_nonzero(tumour & ~brain)) / int(np.count_nonzero(tumour))
    if share <= limits.outside_share:
        return ()
    return (
        Flag(
            code="outside-brain",
            severity="review",
            reason=f"{share:.0%} of the tumour lies where every image is 0.",
            value=share,
            limit=limits.outside_share,
            subject="WT",
        ),
    )


def at_border(labels: LabelArray) -> tuple[Flag, ...]:
    """Give a flag if a labelled voxel lies on the outermost layer of (X, Y, Z)."""
    on_faces = sum(
        int(np.count_nonzero(np.take(labels, face, axis=axis)))
        for axis in range(labels.ndim)
        for face in (0, -1)
    )
    if not on_faces:
        return ()
    return (
        Flag(
            code="at-image-border",
            severity="review",
            reason="The tumour reaches the border of the image: a part may not have been imaged, "
            "and volumes and diameters may be too small.",
            value=float(on_faces),
            limit=0.0,
            subject="WT",
        ),
    )


def _many_parts(labels: LabelArray, limits: Limits) -> tuple[Flag, ...]:
    box = labelled_box(labels)
    _, parts = connected_components(np.ascontiguousarray(labels[box] != Label.BACKGROUND), 26)
    if parts <= limits.parts:
        return ()
    return (
        Flag(
            code="many-parts",
            severity="review",
            reason=f"The tumour is in {parts} parts, as noise would be.",
            value=float(parts),
            limit=float(limits.parts),
            subject="WT",
        ),
    )


def _lone_enhancement(labels: LabelArray, voxel_ml: float, limits: Limits) -> tuple[Flag, ...]:
    """Enhancement beside no other tumour label may be a vessel or the choroid plexus."""
    inside = np.ascontiguousarray(labels[labelled_box(labels)])
    ids, count = connected_components(inside == Label.ET, 26)
    sizes = np.bincount(ids.ravel(), minlength=count + 1)
    other = (inside == Label.NCR) | (inside == Label.ED)
    beside = np.unique(ids[ndimage.binary_dilation(other, _TOUCH)])
    lone = sizes.copy()
    lone[0] = 0
    lone[beside] = 0
    share = float(lone.sum()) / max(1, int(sizes[1:].sum()))
    volume = float(lone.sum()) * voxel_ml
    if share <= limits.lone_share or volume < limits.lone_least_ml:
        return ()
    return (
        Flag(
            code="lone-enhancement",
            severity="review",
            reason=f"{share:.0%} of the enhancing tumour touches no other part of the tumour; "
            "vessels and the choroid plexus enhance too.",
            value=share,
            limit=limits.lone_share,
            subject="ET",
        ),
    )
