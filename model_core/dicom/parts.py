"""The volumes that one series holds: echoes, b-values, phases, the three planes of a localiser.

A series is what the scanner put under one SeriesInstanceUID. Its slices are told apart by their
orientation first; then, only where several lie at one place, by the tags that say how they were
made (`Traits`), in the order of those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from model_core.dicom.frames import TRAIT_WORDS, Frame, Vector

SAME_ORIENTATION: Final = 1e-3
"""Direction cosines of one volume differ by less; rounding to four digits stays below."""
_PLACE_DIGITS: Final = 2
"""Places that are one to a hundredth of a millimetre are one place."""


@dataclass(frozen=True)
class Part:
    """Slices that should make one volume.

    Args:
        frames: in no order yet.
        told_by: what tells them from the rest of their series, in words; empty if nothing had to.
    """

    frames: tuple[Frame, ...]
    told_by: tuple[str, ...] = ()


def parts_of(frames: Sequence[Frame]) -> list[Part]:
    """Split the slices of one series into those that lie beside each other.

    What is left at one place after every tag was asked stays together; see `stacked`.
    """
    known = sorted(frames, key=lambda frame: (frame.instance_uid, frame.index, frame.path))
    planes = _by_orientation(known)
    words = ("orientation",) if len(planes) > 1 else ()
    return [part for plane in planes for part in _told_apart(tuple(plane), words)]


def _by_orientation(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group frames by orientation; those without one are a group of their own."""
    groups: dict[Vector | None, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(_like(frame.orientation, groups), []).append(frame)
    return [groups[key] for key in sorted(groups, key=lambda key: (key is None, key or ()))]


def _like(orientation: Vector | None, known: dict[Vector | None, list[Frame]]) -> Vector | None:
    """Give the orientation among the known ones that this one repeats, or itself."""
    if orientation is None or orientation in known:
        return orientation
    others = [other for other in known if other is not None]
    if not others:
        return orientation
    apart = np.abs(np.array(others) - orientation).max(axis=1)
    nearest = int(apart.argmin())
    return others[nearest] if apart[nearest] < SAME_ORIENTATION else orientation


def _told_apart(frames: tuple[Frame, ...], words: tuple[str, ...]) -> list[Part]:
    crowds = _crowds(frames)
    for name, word in TRAIT_WORDS.items():
        if any(len({getattr(frame.traits, name) for frame in crowd}) > 1 for crowd in crowds):
            return [
                part
                for group in _by_trait(frames, name)
                for part in _told_apart(group, (*words, word))
            ]
    return [Part(frames, words)]


def _crowds(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames that share a place with others, place by place."""
    places: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        if frame.position is not None:
            places[tuple(round(mm, _PLACE_DIGITS) for mm in frame.position)].append(frame)
    return [crowd for crowd in places.values() if len(crowd) > 1]


def _by_trait(frames: Sequence[Frame], name: str) -> list[tuple[Frame, ...]]:
    groups: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[getattr(frame.traits, name)].append(frame)
    return [tuple(groups[key]) for key in sorted(groups, key=lambda key: (key is None, key))]
