"""A flag: one thing about a result that a person should look at, with the number behind it.

``fail``: the result must not be used as it is. ``review``: it may be right, and somebody has to
look. ``info``: good to know. A reason never holds anything from an image's header.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

Severity = Literal["fail", "review", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""The gravest first."""

Code = Literal[
    "geometry-round-trip",
    "nothing-found",
    "lost-on-the-way-back",
    "tumour-too-large",
    "many-parts",
    "at-image-border",
    "outside-brain",
    "lone-enhancement",
    "brain-volume",
    "mirrored-passes-disagree",
    "appearance",
]
CODES: Final[tuple[Code, ...]] = get_args(Code)
_DIGITS: Final = 6


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One finding about a result.

    Attributes:
        code: what kind, for programs.
        severity: how grave.
        reason: one sentence for people.
        value: what was measured, None where a number says nothing.
        limit: what it was held against.
        subject: the region, the contrast or the pair of contrasts it is about.
    """

    code: Code
    severity: Severity
    reason: str
    value: float | None = None
    limit: float | None = None
    subject: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The flag as plain JSON values."""
        return {
            "code": self.code,
            "severity": self.severity,
            "subject": self.subject,
            "value": _plain(self.value),
            "limit": _plain(self.limit),
            "reason": self.reason,
        }


def by_severity(flags: Iterable[Flag]) -> tuple[Flag, ...]:
    """The gravest first, otherwise in the order given."""
    return tuple(sorted(flags, key=lambda flag: SEVERITIES.index(flag.severity)))


def _plain(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else round(number, _DIGITS)
