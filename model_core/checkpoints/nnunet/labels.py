"""nnU-Net's ``dataset.json`` as channels, heads and outputs of a glioma model card.

Only names decide: which channel is which contrast, which value is which tissue. A data set whose
names do not say so is refused, for a guess would swap tissues silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, Literal

from model_core.errors import OptionError
from model_core.types import Contrast

_CONTRASTS: Final[Mapping[Contrast, str]] = MappingProxyType(
    {
        "t1ce": r"t1(w|mri|weighted)?(ce|c|gd|cw|km|post|contrast|contrastenhanced|postcontrast)",
        "t1": r"t1(n|w|native|mri|weighted|pre)?",
        "t2": r"t2(w|mri|weighted)?",
        "flair": r"(t2)?(w)?(flair|f)",
    }
)
_TISSUES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "NCR": r"ncr|net|ncrnet|netc|necro.*|non?enhancing.*",
        "ED": r"ed|snfh|.*o?edema",
        "ET": r"et|at|(contrast)?enhancing.*|active.*",
    }
)
_REGIONS: Final[Mapping[str, str]] = MappingProxyType(
    {"WT": r"wt|whole.*", "TC": r"tc|(tumou?r)?core.*", "ET": r"et|at|(contrast)?enhancing.*"}
)
_NOT_LEARNT: Final = ("background", "ignore")
_WAY_OUT: Final = (
    "A bundle holds a network for adult glioma as in BraTS up to 2023; other networks of nnU-Net "
    "are run with nnU-Net."
)


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What goes in and what comes out, in the network's order."""

    channels: tuple[Contrast, ...]
    heads: Literal["labels", "regions"]
    outputs: tuple[str, ...]
    tissues: Mapping[int, str]
    """nnU-Net's value → NCR, ED or ET."""


def read_labels(dataset: Mapping[str, Any]) -> Meaning:
    """Translate ``dataset.json``.

    Raises:
        OptionError: naming the channel or label that is not one of BraTS glioma.
    """
    channels = _channels(dataset)
    labels = dataset.get("labels")
    if not isinstance(labels, dict) or labels.get("background") != 0:
        raise _refused("labels", "names with values, the background 0", str(labels))
    learnt = {name: value for name, value in labels.items() if name not in _NOT_LEARNT}
    values = {name: _as_set(name, value) for name, value in learnt.items()}
    if any(len(value) > 1 for value in values.values()):
        return _regions(channels, values, dataset.get("regions_class_order"))
    return _single_labels(channels, values)


def _channels(dataset: Mapping[str, Any]) -> tuple[Contrast, ...]:
    names = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(names, dict):
        raise _refused("channel_names", "the four contrasts", str(names))
    ordered = [str(names[number]) for number in sorted(names, key=int)]
    found = tuple(_name_of(name, _CONTRASTS) for name in ordered)
    contrasts: list[Contrast] = [c for name in found for c in _CONTRASTS if c == name]
    if sorted(contrasts) != sorted(_CONTRASTS) or len(found) != len(_CONTRASTS):
        raise _refused("channel_names", "T1, T1ce, T2 and FLAIR, once each", ", ".join(ordered))
    return tuple(contrasts)


def _single_labels(channels: tuple[Contrast, ...], values: Mapping[str, frozenset[int]]) -> Meaning:
    tissues = {next(iter(value)): _name_of(name, _TISSUES) for name, value in values.items()}
    if sorted(map(str, tissues.values())) != sorted(_TISSUES) or len(values) != len(_TISSUES):
        raise _refused("labels", "one label each for NCR, ED and ET", ", ".join(values))
    named = {value: str(tissues[value]) for value in sorted(tissues)}
    return Meaning(
        channels=channels,
        heads="labels",
        outputs=("background", *named.values()),
        tissues=MappingProxyType(named),
    )


def _regions(
    channels: tuple[Contrast, ...], values: Mapping[str, frozenset[int]], order: Any
) -> Meaning:
    names = [_name_of(name, _REGIONS) for name in values]
    # Whole tumour, core, enhancing tumour: each inside the one before and larger than the next.
    nested = all(inner < outer for outer, inner in pairwise(values.values()))
    sizes = tuple(len(value) for value in values.values())
    if names != list(_REGIONS) or not nested or sizes != (3, 2, 1):
        shown = ", ".join(f"{name} {sorted(value)}" for name, value in values.items())
        raise _refused("labels", "whole tumour ⊃ tumour core ⊃ enhancing tumour, so ordered", shown)
    whole, core, enhancing = values.values()
    tissues = {value: name for part, name in
               ((whole - core, "ED"), (core - enhancing, "NCR"), (enhancing, "ET"))
               for value in part}  # fmt: skip
    painted = list(order) if isinstance(order, Sequence) else []
    if [tissues.get(value) for value in painted] != ["ED", "NCR", "ET"]:
        expected = f"{list(tissues)}: what is left of each region outside the next"
        raise _refused("regions_class_order", expected, str(order))
    return Meaning(
        channels=channels,
        heads="regions",
        outputs=tuple(_REGIONS),
        tissues=MappingProxyType(tissues),
    )


def _as_set(name: str, value: Any) -> frozenset[int]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(type(one) is int and one > 0 for one in values):
        raise _refused(f"labels: {name}", "a positive whole number or a list of them", str(value))
    return frozenset(values)


def _name_of(name: str, patterns: Mapping[Any, str]) -> str | None:
    """The one meaning whose pattern a name fits, letters and digits only."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return next((str(key) for key, fits in patterns.items() if re.fullmatch(fits, plain)), None)


def _refused(key: str, expected: str, got: str) -> OptionError:
    return OptionError(f"dataset.json: {key}", expected=expected, got=got, way_out=_WAY_OUT)
