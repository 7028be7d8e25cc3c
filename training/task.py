"""What a network is asked: channels in, labels out, and the regions that are judged.

Glossary. *Internal labels* are uint8 0 … K: 0 is the background, ``labels[i]`` has the value
``i + 1``, whatever the files' numbering (`training.data.dataset.Dataset.values` translates). A
*region* is a union of labels. *Heads* are how the network's channels are read: ``labels``, one
logit per label and the background, the largest wins; ``regions``, one logit per region, each on its
own (sigmoid). Regions judge a result whichever heads the network has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from model_core.errors import OptionError, ShapeError
from model_core.types import CONTRASTS, REGION_LABELS, Contrast
from model_core.types import Region as BratsRegion

Heads = Literal["labels", "regions"]
LabelArray = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Region:
    """A union of labels that is judged, and predicted where the heads are regions."""

    name: str
    labels: tuple[int, ...]
    """Internal values."""
    paints: int
    """The label of a voxel that lies in this region and in no later one."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Channels, labels and regions of a data set.

    Args:
        channels: what each input channel shows, in the network's order.
        labels: foreground names; ``labels[i]`` is the internal value ``i + 1``.
        regions: in the order in which they are painted, outermost first; empty stands for one
            region per label.
        heads: how the network's channels are read.
        dims: 3, or 2 for a network that sees one slice at a time. Arrays stay (X, Y, Z) either
            way; a 2-D network looks at windows that are one voxel deep along X.

    Raises:
        OptionError: no channel, no label, a name twice, or a region of unknown labels.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    channels: tuple[str, ...]
    labels: tuple[str, ...]
    regions: tuple[Region, ...] = ()
    heads: Heads = "labels"
    dims: Literal[2, 3] = 3

    def __post_init__(self) -> None:
        """Complete the regions and refuse what contradicts itself."""
        if not self.regions:
            each = (
                Region(name=name, labels=(value,), paints=value)
                for value, name in enumerate(self.labels, start=1)
            )
            object.__setattr__(self, "regions", tuple(each))
        _distinct("channels", self.channels)
        _distinct("labels", self.labels)
        _distinct("regions", tuple(region.name for region in self.regions))
        known = set(range(1, len(self.labels) + 1))
        for region in self.regions:
            if not region.labels or not {*region.labels, region.paints} <= known:
                raise OptionError(
                    "regions",
                    expected=f"labels out of {sorted(known)} in region {region.name}",
                    got=f"{region.labels}, painted {region.paints}",
                    way_out="Name each region's labels by their internal values.",
                )

    @property
    def outputs(self) -> tuple[str, ...]:
        """The meaning of each output channel of the network, in order."""
        if self.heads == "regions":
            return tuple(region.name for region in self.regions)
        return ("background", *self.labels)

    @property
    def nested(self) -> bool:
        """Whether each region lies inside the one before it, as WT ⊃ TC ⊃ ET."""
        sets = [set(region.labels) for region in self.regions]
        return all(inner <= outer for outer, inner in pairwise(sets))

    @property
    def is_brats(self) -> bool:
        """Whether a result of this task is a BraTS label map, so that a bundle may hold it."""
        return (
            set(self.channels) <= set(CONTRASTS)
            and self.labels == BRATS.labels
            and self.regions == BRATS.regions
        )

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """The channels of a BraTS task, as the words that `model_core` knows.

        Raises:
            OptionError: a channel that is none of them.
        """
        known: dict[str, Contrast] = {contrast: contrast for contrast in CONTRASTS}
        unknown = [channel for channel in self.channels if channel not in known]
        if unknown:
            raise OptionError(
                "channels",
                expected=f"contrasts out of {', '.join(CONTRASTS)}",
                got=", ".join(unknown),
                way_out="Only BraTS studies can be handled here.",
            )
        return tuple(known[channel] for channel in self.channels)

    def mask(self, labels: LabelArray, region: str) -> NDArray[np.bool_]:
        """Where internal `labels` (any shape) belong to the region called `region`."""
        wanted = next(r.labels for r in self.regions if r.name == region)
        found: NDArray[np.bool_] = np.isin(labels, wanted)
        return found

    def decode(self, scores: NDArray[np.floating[Any]]) -> LabelArray:
        """Internal labels (*spatial) from raw logits (K, *spatial).

        Label heads: argmax, the earlier on a tie. Region heads: a region is where its logit is
        above 0 and, where regions nest, only inside the one before it; later regions paint over
        earlier ones (nnU-Net's ``regions_class_order``).

        Raises:
            ShapeError: another number of channels than `outputs`.
        """
        if len(scores) != len(self.outputs):
            raise ShapeError(
                f"scores: expected {len(self.outputs)} channels ({', '.join(self.outputs)}), "
                f"got {len(scores)}."
            )
        if self.heads == "labels":
            highest: LabelArray = scores.argmax(axis=0).astype(np.uint8)
            return highest
        painted = np.zeros(scores.shape[1:], np.uint8)
        inside = np.ones(scores.shape[1:], np.bool_)
        for region, channel in zip(self.regions, scores, strict=True):
            here = channel > 0
            if self.nested:
                here &= inside
                inside = here
            painted[here] = region.paints
        return painted


def _distinct(argument: str, names: Sequence[str]) -> None:
    if not names or len(set(names)) != len(names):
        raise OptionError(
            argument,
            expected="at least one name, each once",
            got=", ".join(names) or "none",
            way_out="Correct the data set's description.",
        )


_BRATS_PAINTS: tuple[tuple[BratsRegion, int], ...] = (("WT", 2), ("TC", 1), ("ET", 3))
BRATS = Task(
    channels=CONTRASTS,
    labels=("NCR", "ED", "ET"),
    regions=tuple(
        Region(name=name, labels=tuple(int(v) for v in REGION_LABELS[name]), paints=paints)
        for name, paints in _BRATS_PAINTS
    ),
    heads="regions",
)
"""Glioma as in BraTS up to 2023: four contrasts, WT ⊃ TC ⊃ ET."""
