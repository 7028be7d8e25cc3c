"""Two time points of one patient: laid on each other, and what changed between them.

The later time point stays where it is. The contrast-enhanced T1 of the earlier one is registered to
that of the later one, rigidly, and the earlier labels are carried along (each label linearly, then
the one that has most of a voxel). *Volumes* are counted on each time point's own grid, without any
interpolation; *new*, *gone* and *stable* are counted where both label maps meet, on the later grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from model_core.errors import StudyError
from model_core.findings import Statistics, measure
from model_core.imaging.volume import Volume
from model_core.labels import REGIONS, LabelArray, region_mask
from model_core.preparation.alignment import PUSH_MM, WELL_COVERED, Alignment, align
from model_core.preparation.back import carry_labels
from model_core.preparation.rigid import moved, moved_grid
from model_core.types import Contrast, Region

WELL_LOST: Final = 0.3
"""Share of the common information that a push costs at the right place, at least, of thirteen
patients (`model_core.preparation.alignment`); below it a warning asks a person to look."""
FAR_DEG: Final = 25.0
"""No head lies this far turned in two sessions, as a rule."""
MOVED_ML: Final = 0.05
"""Share of a volume that carrying may change before it is told."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Timepoint:
    """One session.

    Attributes:
        labels: internal labels, uint8.
        images: contrasts on the grid of the labels, T1ce among them.
    """

    labels: Volume
    images: Mapping[Contrast, Volume]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One region where both label maps meet, all in millilitres.

    Attributes:
        new: in the region now and not before.
        gone: before and not now.
        stable: both times.
    """

    new: float
    gone: float
    stable: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """What two time points say together.

    Attributes:
        before: measures of the earlier one, on its own grid.
        after: likewise of the later one.
        carried: the earlier labels on the grid of the later ones.
        changes: by region.
        alignment: how the earlier session was laid on the later one.
        warnings: what speaks against trusting the change map.
    """

    before: Statistics
    after: Statistics
    carried: LabelArray
    changes: Mapping[Region, Change]
    alignment: Alignment
    warnings: tuple[str, ...]


def compare(
    before: Timepoint, after: Timepoint, *, stop: Callable[[], bool] = lambda: False
) -> Comparison:
    """Compare two time points of the same patient.

    Args:
        before: the earlier one.
        after: the later one.
        stop: asked during the registration.

    Raises:
        StudyError: a T1ce is missing, or the two cannot be laid on each other.
        Cancelled: `stop` answered yes.
    """
    alignment = _aligned(before, after, stop)
    here = after.labels.grid
    there = moved_grid(before.labels.grid, alignment.matrix)
    carried = carry_labels(before.labels.array, there, here)
    measured = measure(before.labels.array, before.labels.grid)
    return Comparison(
        before=measured,
        after=measure(after.labels.array, here),
        carried=carried,
        changes={
            region: _change(carried, after.labels.array, region, here.voxel_ml)
            for region in REGIONS
        },
        alignment=alignment,
        warnings=tuple(_warnings(alignment, measured, measure(carried, here))),
    )


def laid_over(before: Timepoint, comparison: Comparison) -> Mapping[Contrast, Volume]:
    """The earlier images where the later session has the same head; only their affines change."""
    matrix = comparison.alignment.matrix
    return {contrast: moved(image, matrix) for contrast, image in before.images.items()}


def _aligned(before: Timepoint, after: Timepoint, stop: Callable[[], bool]) -> Alignment:
    for name, point in (("before", before), ("after", after)):
        if "t1ce" not in point.images:
            raise StudyError(
                name,
                expected="the contrast-enhanced T1 of both time points",
                got="none",
                way_out="Add t1ce.nii.gz to the folder, or name the file.",
            )
    try:
        found = align(after.images["t1ce"], before.images["t1ce"], contrast="t1ce", stop=stop)
    except StudyError as error:
        raise StudyError(
            "before",
            expected="a T1ce of the same head as --after, which registration can lay on it",
            got=error.got,
            way_out="Look at both images: are they of one patient, and do both show the head?",
        ) from error
    if found.after <= found.before:  # no better than the headers, so these are believed
        return replace(found, matrix=np.eye(4), kept=True)
    return found


def _change(before: LabelArray, after: LabelArray, region: Region, voxel_ml: float) -> Change:
    old, new = region_mask(before, region), region_mask(after, region)
    return Change(
        new=float(np.count_nonzero(new & ~old)) * voxel_ml,
        gone=float(np.count_nonzero(old & ~new)) * voxel_ml,
        stable=float(np.count_nonzero(old & new)) * voxel_ml,
    )


def _warnings(alignment: Alignment, own: Statistics, carried: Statistics) -> list[str]:
    found = []
    if alignment.loss < WELL_LOST:
        found.append(
            f"Pushed {PUSH_MM:.0f} mm apart the images lose only {alignment.loss:.0%} of what they "
            "have in common: look whether the registration is right."
        )
    if alignment.covered < WELL_COVERED:
        found.append(
            f"The earlier image shows {alignment.covered:.0%} of the later head: tumour beyond it "
            "would look new."
        )
    if alignment.rotation_deg > FAR_DEG:
        found.append(
            f"The head was turned by {alignment.rotation_deg:.0f}°: look whether it is one patient."
        )
    before, after = own["WT"].volume_ml, carried["WT"].volume_ml
    if before and abs(after - before) > MOVED_ML * before:
        found.append(
            f"Carried onto the later grid, the earlier tumour has {after:.1f} mL instead of "
            f"{before:.1f} mL: it reaches beyond the later image, or the grids are very different."
        )
    return found
