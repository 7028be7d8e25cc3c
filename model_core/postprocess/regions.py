"""What a correction must know of a label map: its labels' names and how its regions enclose others.

The steps know no anatomy. `GLIOMA` is that of BraTS and the default everywhere, so a model card
needs none; other tasks make their own (`training.judge.corrections.rules_of`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from model_core.errors import OptionError
from model_core.labels import LABEL_NAMES, LabelArray, Mask
from model_core.types import REGION_LABELS, Label


@dataclass(frozen=True, kw_only=True)
class RegionRule:
    """A union of labels, and where its voxels come from and go to."""

    labels: tuple[int, ...]
    leaving: int = 0
    """What a voxel becomes when it leaves the region: the label that encloses it."""
    joining: int | None = None
    """What a voxel becomes when it joins; ``None``: the region has no holes to fill."""
    fillable: tuple[int, ...] = (0,)
    """Labels that a hole may be made of: background and what encloses the region, so that another
    structure inside is no hole."""


@dataclass(frozen=True, kw_only=True)
class RegionRules:
    """The labels and regions of one kind of label map.

    Args:
        labels: foreground names; ``labels[i]`` is the internal value ``i + 1``.
        regions: by name, outermost first.
        flat: whether a map of one slice, (1, H, W), is a picture: its holes are closed in the
            plane. A slice cut out of a volume is open above and below.
    """

    labels: tuple[str, ...]
    regions: Mapping[str, RegionRule]
    flat: bool = False

    def __post_init__(self) -> None:
        """Make the regions read-only."""
        object.__setattr__(self, "regions", MappingProxyType(dict(self.regions)))

    def rule(self, region: str) -> RegionRule:
        """The rule of a region.

        Raises:
            OptionError: no such region.
        """
        if region not in self.regions:
            raise OptionError(
                "region",
                expected=f"one of {', '.join(self.regions)}",
                got=repr(region),
                way_out="Name a region of the labels that are corrected.",
            )
        return self.regions[region]

    def mask(self, labels: LabelArray, region: str) -> Mask:
        """Where `labels` belong to `region`; a new array.

        Raises:
            OptionError: no such region.
        """
        return _union(labels, self.rule(region).labels)

    def mask_of(self, labels: LabelArray, names: Sequence[str] | None = None) -> Mask:
        """Where `labels` have one of the labels of these names, by default any; a new array.

        Raises:
            OptionError: no such label.
        """
        names = self.labels if names is None else names
        unknown = [name for name in names if name not in self.labels]
        if unknown:
            raise OptionError(
                "names",
                expected=f"some of {', '.join(self.labels)}",
                got=repr(unknown[0]),
                way_out="Name labels, not regions.",
            )
        return _union(labels, [self.labels.index(name) + 1 for name in names])

    def counts(self, labels: LabelArray) -> dict[str, int]:
        """Voxels of each label by its name."""
        found = np.bincount(labels.ravel(), minlength=len(self.labels) + 1)
        return {name: int(found[value]) for value, name in enumerate(self.labels, start=1)}


def _union(labels: LabelArray, values: Sequence[int]) -> Mask:
    first, *others = values
    mask: Mask = labels == first
    for value in others:
        mask |= labels == value
    return mask


GLIOMA: Final = RegionRules(
    labels=tuple(LABEL_NAMES[label] for label in (Label.NCR, Label.ED, Label.ET)),
    regions={
        "WT": RegionRule(labels=REGION_LABELS["WT"], leaving=Label.BACKGROUND, joining=Label.ED),
        "TC": RegionRule(
            labels=REGION_LABELS["TC"],
            leaving=Label.ED,
            joining=Label.NCR,
            fillable=(Label.BACKGROUND, Label.ED),
        ),
        "ET": RegionRule(labels=REGION_LABELS["ET"], leaving=Label.NCR),
    },
)
"""BraTS: ET ⊂ TC ⊂ WT. A dark centre inside an enhancing rim is necrosis: ET has no holes."""
