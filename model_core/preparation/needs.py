"""What a study lacks before a network may look at it, told from the images alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_core.imaging.skull import is_stripped
from model_core.imaging.study import check_complete
from model_core.imaging.volume import Volume
from model_core.types import CONTRASTS, Contrast

FIXED: Final[Contrast] = "t1ce"
"""The contrast that stays where it is: it shows the enhancing tumour and is often the finest."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What ``auto`` would do, and why.

    Attributes:
        register: the contrasts have to be laid on each other.
        strip: the skull has to be taken off.
        resample: the contrasts have to come onto one grid.
        stripped: contrasts that are without skull already.
        reasons: for people, one for each need; or why there is none.
    """

    register: bool
    strip: bool
    resample: bool
    stripped: tuple[Contrast, ...]
    reasons: tuple[str, ...]

    @property
    def anything(self) -> bool:
        """Whether anything has to be done."""
        return self.register or self.strip or self.resample

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "register": self.register,
            "strip": self.strip,
            "resample": self.resample,
            "stripped": list(self.stripped),
            "reasons": list(self.reasons),
        }


def needs(volumes: Mapping[Contrast, Volume]) -> Needs:
    """Tell what a study lacks.

    One grid and no skull: such a study was prepared, and is left alone. Images with skull come from
    a scanner, where one grid is no proof that the patient lay still: they are registered too.

    Args:
        volumes: the four contrasts as they were read.

    Raises:
        StudyError: a contrast is missing.
    """
    check_complete(volumes)
    stripped = tuple(contrast for contrast in CONTRASTS if is_stripped(volumes[contrast]))
    others = [c for c in CONTRASTS if not _same_grid(volumes[FIXED], volumes[c])]
    with_skull = [contrast for contrast in CONTRASTS if contrast not in stripped]
    reasons = []
    if others:
        reasons.append(f"on another grid than {FIXED}: {', '.join(others)}")
    if with_skull:
        reasons.append(f"with skull: {', '.join(with_skull)}")
    return Needs(
        register=bool(others or with_skull),
        strip=bool(with_skull),
        resample=bool(others),
        stripped=stripped,
        reasons=tuple(reasons) or ("one grid and no skull: prepared already",),
    )


def brain_of(stripped: Volume) -> NDArray[np.bool_]:
    """Mask of a stripped image: what is not 0, holes filled, (X, Y, Z)."""
    mask: NDArray[np.bool_] = ndimage.binary_fill_holes(stripped.array != 0)
    return mask


def _same_grid(first: Volume, second: Volume) -> bool:
    return second.grid.reoriented(first.axcodes).matches(first.grid)
