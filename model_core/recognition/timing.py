"""What the timing of a sequence says: the weighting that its TE, TR and TI give, whatever its name.

One line of the table is one kind of sequence. The bounds are those of clinical protocols for the
brain (Ellingson et al., Neuro-Oncology 17:1188, 2015; the ADNI and PPMI manuals), drawn wide; the
weight is how far such timing alone can be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from model_core.dicom.facts import SeriesFacts

Kind = Literal["t1", "t2", "flair", "other"]
Range = tuple[float, float]
_ANY: Final[Range] = (0.0, float("inf"))


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One kind of sequence.

    Attributes:
        says: how it is said to people.
        kind: the weighting; ``other`` for what is none of the four.
        weight: how far it is to be trusted, 0 to 1.
        sequence: a part of ScanningSequence that must be there; "" for any.
        inversion: whether it has an inversion pulse; None for either.
        te_ms: EchoTime, in ms; both ends belong to it, here and below.
        tr_ms: RepetitionTime, in ms.
        ti_ms: InversionTime, in ms; asked for only where the header has one, or ``ti_needed``.
        ti_needed: without an inversion time in the header the line does not fit.
        flip_deg: FlipAngle, in degrees.
    """

    says: str
    kind: Kind
    weight: float
    sequence: str = ""
    inversion: bool | None = None
    te_ms: Range = _ANY
    tr_ms: Range = _ANY
    ti_ms: Range = _ANY
    ti_needed: bool = False
    flip_deg: Range = _ANY


TIMINGS: Final = (
    Timing(says="echo-planar sequence", kind="other", weight=0.9, sequence="EP"),
    Timing(
        says="timing of a short-TI inversion (fat)", kind="other", weight=0.85, sequence="IR",
        inversion=True, te_ms=(10, 120), tr_ms=(2000, 15000), ti_ms=(80, 300),
        ti_needed=True,
    ),
    Timing(
        says="timing of a magnetisation-prepared T1", kind="t1", weight=0.85, sequence="GR",
        inversion=True, te_ms=(0.5, 8), ti_ms=(300, 1400),
    ),
    Timing(
        says="timing of a magnetisation-prepared T1", kind="t1", weight=0.8, sequence="RM",
        inversion=True, te_ms=(0.5, 8), ti_ms=(300, 1400),
    ),
    Timing(
        says="timing of an inversion-recovery T1", kind="t1", weight=0.8, sequence="IR",
        inversion=True, te_ms=(3, 50), tr_ms=(1000, 3500), ti_ms=(400, 1300),
    ),
    Timing(
        says="timing of a FLAIR", kind="flair", weight=0.9, inversion=True, te_ms=(60, 700),
        tr_ms=(3500, 20000), ti_ms=(1400, 3500),
    ),
    Timing(
        says="timing of a T2* gradient echo", kind="other", weight=0.7, sequence="GR",
        te_ms=(12, 80),
    ),
    Timing(
        says="timing of a T1 gradient echo", kind="t1", weight=0.6, sequence="GR", te_ms=(0.5, 11),
        tr_ms=(60, 500), flip_deg=(40, 95),
    ),
    Timing(
        says="timing of a fast gradient echo", kind="t1", weight=0.45, sequence="GR",
        te_ms=(0.5, 8), tr_ms=(3, 60),
    ),
    Timing(
        says="timing of a T1 spin echo", kind="t1", weight=0.8, sequence="SE", inversion=False,
        te_ms=(2, 32), tr_ms=(200, 1300),
    ),
    Timing(
        says="timing of a T2 spin echo", kind="t2", weight=0.8, sequence="SE", inversion=False,
        te_ms=(60, 700), tr_ms=(1800, 20000),
    ),
    Timing(
        says="timing of a proton-density spin echo", kind="other", weight=0.7, sequence="SE",
        inversion=False, te_ms=(4, 45), tr_ms=(1800, 20000),
    ),
    Timing(says="timing of a T2", kind="t2", weight=0.6, te_ms=(70, 700), tr_ms=(1800, 20000)),
    Timing(says="timing of a T1", kind="t1", weight=0.5, te_ms=(0.5, 20), tr_ms=(3, 1300)),
)  # fmt: skip
"""The first that fits counts."""


def read_timing(facts: SeriesFacts) -> Timing | None:
    """Find the line of the table that fits; None where none does or there is no echo time."""
    return next((timing for timing in TIMINGS if _fits(timing, facts)), None)


def _fits(timing: Timing, facts: SeriesFacts) -> bool:
    if timing.sequence and timing.sequence not in facts.scanning_sequence:
        return False
    if timing.inversion is not None and timing.inversion != has_inversion(facts):
        return False
    if timing.sequence == "EP":
        return True
    asked = (
        (facts.echo_time_ms, timing.te_ms, True),
        (facts.repetition_time_ms, timing.tr_ms, True),
        (facts.inversion_time_ms, timing.ti_ms, timing.ti_needed),
        (facts.flip_angle_deg, timing.flip_deg, False),
    )
    return all(_within(value, bounds, needed) for value, bounds, needed in asked)


def _within(value: float | None, bounds: Range, needed: bool) -> bool:
    if value is None or value <= 0:  # a 0 stands for "not there" in many headers
        return not needed or bounds == _ANY
    return bounds[0] <= value <= bounds[1]


def has_inversion(facts: SeriesFacts) -> bool:
    """Tell whether the sequence begins with an inversion pulse."""
    return "IR" in facts.scanning_sequence or bool(facts.inversion_time_ms)
