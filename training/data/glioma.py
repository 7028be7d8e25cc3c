"""Recognising BraTS glioma by what a data set declares, so that its models fit BraTS bundles.

Only names decide: four channels that are T1, T1ce, T2 and FLAIR in any order, and either three
labels that name necrosis (or non-enhancing core), oedema and enhancing tumour, or three regions
that name whole tumour, tumour core and enhancing tumour. Values are never looked at.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Final

from model_core.imaging.study_files import CONTRAST_NAMES
from model_core.types import CONTRASTS
from training.task import BRATS, Heads, Task

Declared = Mapping[str, tuple[int, ...]]
"""Label or region name → its file values, the background aside."""

_PARTS: Final = {
    "NCR": (re.compile(r"necro|nonenhanc"), {"ncr", "net", "ncrnet", "netc", "nec"}),
    "ED": (re.compile(r"o?edema"), {"ed", "snfh"}),
    "ET": (re.compile(r"enhanc"), {"et"}),
}
"""Tried in this order: a non-enhancing core is no enhancing tumour."""
_REGIONS: Final = {
    "WT": (re.compile(r"whole"), {"wt"}),
    "TC": (re.compile(r"core"), {"tc"}),
    "ET": (re.compile(r"enhanc"), {"et"}),
}
_Names = Mapping[str, tuple[re.Pattern[str], set[str]]]


def as_glioma(
    channels: Sequence[str], declared: Declared, *, paints: Sequence[int] | None
) -> tuple[Task, dict[int, int]] | None:
    """The BraTS task in the files' channel order with file value → label, or None.

    Args:
        channels: names in the files' order.
        declared: labels or regions.
        paints: for regions, the file value that each writes (``regions_class_order``); None where
            `declared` are labels.
    """
    contrasts = tuple(CONTRAST_NAMES.get(_plain(name), "") for name in channels)
    groups = _labels(declared) if paints is None else _regions(declared, paints)
    if sorted(contrasts) != sorted(CONTRASTS) or groups is None:
        return None
    heads: Heads = "labels" if paints is None else "regions"
    task = dataclasses.replace(BRATS, channels=contrasts, heads=heads)
    named = {name: label for label, name in enumerate(BRATS.labels, start=1)}
    values = {value: named[name] for name, group in groups.items() for value in group}
    return task, {0: 0, **values}


def _labels(declared: Declared) -> dict[str, tuple[int, ...]] | None:
    return _sorted_out(declared, _PARTS)


def _regions(declared: Declared, paints: Sequence[int]) -> dict[str, tuple[int, ...]] | None:
    regions = _sorted_out(declared, _REGIONS)
    if regions is None:
        return None
    whole, core, enhancing = (set(regions[name]) for name in ("WT", "TC", "ET"))
    if not whole > core > enhancing:
        return None
    groups = {"NCR": core - enhancing, "ED": whole - core, "ET": enhancing}
    # the value that is written comes first
    return {
        name: tuple(sorted(group, key=lambda value: (value not in paints, value)))
        for name, group in groups.items()
    }


def _sorted_out(declared: Declared, known: _Names) -> dict[str, tuple[int, ...]] | None:
    found = {_which(name, known): values for name, values in declared.items()}
    fits = len(declared) == len(known) and set(found) == set(known)
    return {str(name): values for name, values in found.items()} if fits else None


def _which(name: str, known: _Names) -> str | None:
    plain = _plain(name)
    for part, (pattern, exact) in known.items():
        if plain in exact or pattern.search(plain):
            return part
    return None


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
