"""All checks of a result together: what a person should know before trusting it.

Nothing is changed and nothing refused here; `Flag.severity` says how grave a finding is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Final

import numpy as np

from model_core.findings.agreement import check_agreement
from model_core.findings.familiar import check_appearance
from model_core.findings.flags import Flag, by_severity
from model_core.findings.plausibility import Limits, check_plausible
from model_core.findings.round_trip import check_round_trip
from model_core.imaging.study import Study
from model_core.labels import LabelArray, Mask
from model_core.types import Region

DEFAULT_LIMITS: Final = Limits()


def check(
    study: Study,
    labels: LabelArray,
    *,
    encoded: bytes | None = None,
    agreement: Mapping[Region, float] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Flag, ...]:
    """Every flag of a result, the gravest first.

    Args:
        study: the images as the segmenter was given them, skull-stripped.
        labels: internal labels (X, Y, Z) on the grid of ``study.native``.
        encoded: the label map as it is about to be written; None leaves its check out.
        agreement: of the mirrored passes by region (`model_core.findings.agreement`), where there
            were several.
        limits: what is still plausible.
    """
    grid = study.native.grid
    flags = check_round_trip(encoded, labels, grid) if encoded is not None else ()
    return by_severity(
        (
            *flags,
            *check_plausible(labels, brain_of(study), grid.voxel_ml, limits),
            *check_agreement(agreement or {}),
            *check_appearance(study),
        )
    )


def brain_of(study: Study) -> Mask:
    """Where some contrast is not 0, (X, Y, Z) bool."""
    masks = (volume.array != 0 for volume in study.volumes.values())
    return reduce(np.logical_or, masks)
