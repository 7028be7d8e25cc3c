"""How far the mirrored passes of one study agree: the mean Dice of a pass with another, by region.

A pass *votes* for a region at a voxel or does not. With a share v of P passes voting for it, the
pooled Dice of two different passes, over all pairs of passes and all voxels, is

    Σ (P v² - v) / ((P - 1) Σ v)

so two sums a region are enough, and no pass has to be kept. 1: every pass says the same. A region
that no pass sees has nothing to disagree about, and no value. Taken window by window, a voxel
counts as often as a window holds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from model_core.errors import InputError
from model_core.findings.flags import Flag
from model_core.labels import REGIONS, LabelArray, region_mask
from model_core.types import Region

LEAST_AGREEMENT: Final[Mapping[Region, float]] = {"WT": 0.95, "TC": 0.93, "ET": 0.90}
"""Below this the passes disagree; how it was chosen stands in ``docs/concepts/quality.md``."""


class Votes:
    """The two sums of each region, filled a window at a time.

    Args:
        passes: P, at least two.

    Raises:
        InputError: fewer.
    """

    def __init__(self, passes: int) -> None:
        if passes < 2:
            raise InputError(
                "passes",
                expected="at least two",
                got=f"{passes}",
                way_out="One pass agrees with itself: switch mirroring on.",
            )
        self.passes = passes
        self._votes = dict.fromkeys(REGIONS, 0)
        self._squares = dict.fromkeys(REGIONS, 0)

    def add(self, maps: Sequence[LabelArray]) -> None:
        """Take in what each pass says of the same voxels: internal labels of one shape."""
        assert len(maps) == self.passes, "every pass votes"
        for region in REGIONS:
            counts = np.zeros(maps[0].shape, np.int64)
            for one in maps:
                counts += region_mask(one, region)
            self._votes[region] += int(counts.sum())
            self._squares[region] += int(np.square(counts).sum())

    def agreement(self) -> dict[Region, float]:
        """Mean Dice of two passes, for each region that some pass sees."""
        return {
            region: (self._squares[region] - votes) / ((self.passes - 1) * votes)
            for region, votes in self._votes.items()
            if votes
        }


def agreement_of(maps: Sequence[LabelArray]) -> dict[Region, float]:
    """The agreement of whole label maps, one a pass.

    Args:
        maps: internal labels of one shape, at least two.

    Raises:
        InputError: fewer than two.
    """
    votes = Votes(len(maps))
    votes.add(maps)
    return votes.agreement()


def check_agreement(
    agreement: Mapping[Region, float], least: Mapping[Region, float] = LEAST_AGREEMENT
) -> tuple[Flag, ...]:
    """A flag for each region about which the passes disagree."""
    return tuple(
        Flag(
            code="mirrored-passes-disagree",
            severity="review",
            reason=f"The mirrored passes agree on {region} with a Dice of {value:.2f} only: the "
            "network is unsure of it.",
            value=value,
            limit=least[region],
            subject=region,
        )
        for region, value in agreement.items()
        if value < least[region]
    )
