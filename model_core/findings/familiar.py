"""Whether the images look like those that the reference ranges were taken from.

``appearance_ranges.json`` holds, for each number of `model_core.findings.appearance`, the least and
the largest value over reference cases. How *strange* a value is: by how many widths of its range it
lies outside of it. Each kind of number has its limit: beyond it is worth a word (``info``), beyond
twice the limit a look (``review``). `learn` makes the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from model_core.findings.appearance import Kind, appearance, kind_of, subject_of
from model_core.findings.flags import Flag
from model_core.imaging.study import Study

RANGES_FILE: Final = Path(__file__).parent / "appearance_ranges.json"
REVIEW_FROM: Final = 2.0
"""Times its limit that a number is strange."""
_MEANINGS: Final[Mapping[Kind, str]] = {
    "quantile": "the spread of its values",
    "grain": "its fine grain (noise raises it, blur lowers it)",
    "shading": "its shading from one side of the head to another",
    "correlation": "how the two go together",
}


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """What is familiar.

    Attributes:
        limits: for each kind of number, how many widths outside its range it may be.
        ranges: least and largest value of each feature.
    """

    limits: Mapping[Kind, float]
    ranges: Mapping[str, tuple[float, float]]

    def strangeness(self, features: Mapping[str, float]) -> dict[str, float]:
        """How many widths of its range each known feature lies outside; 0 inside."""
        found = {}
        for name, value in features.items():
            if name in self.ranges:
                low, high = self.ranges[name]
                found[name] = max(low - value, value - high, 0.0) / (high - low)
        return found


@cache
def reference_ranges() -> Ranges:
    """The ranges that the package brings."""
    stored = json.loads(RANGES_FILE.read_text(encoding="utf-8"))
    return Ranges(
        limits=stored["limits"],
        ranges={name: (low, high) for name, (low, high) in stored["ranges"].items()},
    )


def check_appearance(study: Study, ranges: Ranges | None = None) -> tuple[Flag, ...]:
    """A flag for each contrast, or pair of contrasts, that looks unlike the reference cases.

    Args:
        study: the images.
        ranges: what is familiar; the package's own when left out.
    """
    ranges = ranges or reference_ranges()
    strange = ranges.strangeness(appearance(study))
    limits = {feature: ranges.limits[kind_of(feature)] for feature in strange}
    worst: dict[str, str] = {}
    for feature in sorted(strange, key=lambda one: strange[one] / limits[one]):
        if strange[feature] > limits[feature]:
            worst[subject_of(feature)] = feature
    return tuple(_flag(one, strange[one], limits[one]) for one in worst.values())


def _flag(feature: str, strangeness: float, limit: float) -> Flag:
    subject = subject_of(feature)
    names, verb = subject.replace("~", " and "), "do" if "~" in subject else "does"
    return Flag(
        code="appearance",
        severity="review" if strangeness > REVIEW_FROM * limit else "info",
        reason=f"{names} {verb} not look like the images that this was tried on: "
        f"{_MEANINGS[kind_of(feature)]} lies outside the usual range by {strangeness:.1f} of its "
        "widths. Contrasts that are mixed up, a skull that was left in or a poor scan do that.",
        value=strangeness,
        limit=limit,
        subject=subject,
    )
