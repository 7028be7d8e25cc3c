"""One thing that is wrong with a data set, told so that it can be put right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "missing-channel",
    "missing-label",
    "unreadable",
    "channels",
    "grid",
    "not-finite",
    "values",
    "empty",
    "no-foreground",
    "duplicate",
    "description",
]
"""``channels``: another number of them than declared, or one image in two of them. ``values``: a
label map holds what is not declared. ``empty``: an image has one value everywhere. ``description``:
``dataset.json`` and the files disagree."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with a case.

    Args:
        case: its name, for the user's own screen; empty for the data set as a whole.
        kind: see `Kind`.
        text: one sentence.
        error: false for what may be meant that way (a warning).
    """

    case: str
    kind: Kind
    text: str
    error: bool = True
