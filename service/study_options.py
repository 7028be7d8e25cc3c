"""The options of a request, from the texts of its form to checked values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast, get_args

from model_core.errors import OptionError
from model_core.types import CONTRASTS, LABEL_SCHEMES, TTA_MODES, WINDOW_CHOICES, Contrast
from service.jobs.records import PRIORITIES, Priority

Preprocess = Literal["auto", "none", "full"]
PREPROCESS: Final[tuple[Preprocess, ...]] = get_args(Preprocess)
SEG_TYPES: Final = ("BINARY", "LABELMAP")
BATCH: Final = re.compile("^[A-Za-z0-9_-]{1,64}$")
SERIES_UID: Final = re.compile("^[0-9.]{1,64}(#[0-9]{1,6})?$")
_BOOLEANS: Final[Mapping[str, bool]] = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How images become what the network sees, and what is made of the result.

    Attributes:
        preprocess: ``auto``: what the images lack; ``none``: nothing; ``full``: every step.
        grid: the contrast on whose own grid the label map is wanted.
        n4: whether bias fields are corrected first.
        seg_type: how a DICOM SEG stores its voxels.
        images: whether the contrasts are kept beside the label map.
        series: contrast → uid of the DICOM series that the caller chose.
    """

    preprocess: Preprocess
    grid: Contrast
    n4: bool = False
    seg_type: str = "BINARY"
    images: bool = False
    series: Mapping[Contrast, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `ReadingOptions(**…)` makes it again.

        `images` is named only where it is wanted: a result is known by these values, one without
        images under the same as ever, and a worker of an older release reads them too.
        """
        return {
            "preprocess": self.preprocess,
            "grid": self.grid,
            "n4": self.n4,
            "seg_type": self.seg_type,
            "series": dict(self.series),
            **({"images": True} if self.images else {}),
        }


def parse_options(fields: Mapping[str, str]) -> dict[str, Any]:
    """The options of a run from form fields; one that is missing or blank is None: the card's.

    Raises:
        OptionError: a value is outside the allowed ones.
    """
    return {
        "tta": _choice(fields, "tta", TTA_MODES),
        "label_scheme": _choice(fields, "label_scheme", LABEL_SCHEMES),
        "postprocess": _boolean(fields, "postprocess"),
        "window": _choice(fields, "window", WINDOW_CHOICES),
        "allow_fewer_passes": _boolean(fields, "allow_fewer_passes") is True,
    }


def parse_reading(fields: Mapping[str, str], *, dicom: bool) -> ReadingOptions:
    """How the images of a form are to be read.

    NIfTI images are taken as they are, on the grid of t1, unless the form says otherwise: they
    usually come prepared. DICOM comes from scanners: what it lacks is done, on the grid of t1ce.

    Raises:
        OptionError: a value is outside the allowed ones, or does not go with the others.
    """
    preprocess = _choice(fields, "preprocess", PREPROCESS) or ("auto" if dicom else "none")
    n4 = _boolean(fields, "n4") is True
    if n4 and preprocess == "none":
        raise OptionError(
            "n4",
            expected="n4 together with preprocess auto or full",
            got="preprocess none",
            way_out="Add preprocess=auto, or leave n4 out.",
        )
    return ReadingOptions(
        preprocess=cast("Preprocess", preprocess),
        grid=cast("Contrast", _choice(fields, "grid", CONTRASTS) or ("t1ce" if dicom else "t1")),
        n4=n4,
        seg_type=_choice(fields, "seg_type", SEG_TYPES) or "BINARY",
        images=_boolean(fields, "images") is True,
        series=parse_series(fields),
    )


def parse_series(fields: Mapping[str, str]) -> dict[Contrast, str]:
    """The caller's own choice of series, by contrast.

    Raises:
        OptionError: a value that is no uid of a series.
    """
    found: dict[Contrast, str] = {}
    for contrast in CONTRASTS:
        if uid := fields.get(f"series_{contrast}"):
            if not SERIES_UID.fullmatch(uid):
                raise OptionError(
                    f"series_{contrast}",
                    expected="the uid of a series, as POST /inspect gives it",
                    got="something else",
                    way_out="Inspect the study and copy the uid of the right series.",
                )
            found[contrast] = uid
    return found


def parse_priority(fields: Mapping[str, str]) -> Priority:
    """The priority that a form asks for."""
    return cast("Priority", _choice(fields, "priority", PRIORITIES) or "normal")


def parse_batch(fields: Mapping[str, str]) -> str | None:
    """The token that joins jobs into a batch, if the form has one.

    Raises:
        OptionError: it is no token; it stands in the database and in answers, so it stays short.
    """
    batch = fields.get("batch") or None
    if batch is not None and not BATCH.fullmatch(batch):
        raise OptionError(
            "batch",
            expected="1 to 64 letters, digits, - and _",
            got="something else",
            way_out="Choose a token that says nothing about the patients.",
        )
    return batch


def wants_known_result(fields: Mapping[str, str]) -> bool:
    """Whether the result of an earlier job will do; yes, unless the form says no."""
    return _boolean(fields, "cache") is not False


def _choice(fields: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str | None:
    value = fields.get(name) or None
    if value is None or value in allowed:
        return value
    raise OptionError(
        name,
        expected=f"one of {', '.join(allowed)}",
        got="another value",
        way_out="Leave the option out to take the default.",
    )


def _boolean(fields: Mapping[str, str], name: str) -> bool | None:
    choice = _choice({name: fields.get(name, "").lower()}, name, tuple(_BOOLEANS))
    return None if choice is None else _BOOLEANS[choice]
