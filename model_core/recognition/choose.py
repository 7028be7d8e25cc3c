"""One series for each contrast, out of several that were judged.

Of the candidates for a contrast the best is the first by these rules, in this order: a certain
verdict before an uncertain one; an original before a reformat; thin slices before thick ones; more
slices before fewer; then by time. The enhanced T1 is the latest there is, as the agent needs time
to reach a tumour; the native T1 the earliest, before any agent; of T2 and FLAIR the latest, since a
sequence is repeated when the first one failed. Where time alone decided, that is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from model_core.dicom.facts import SeriesFacts
from model_core.errors import OptionError
from model_core.recognition.rules import Verdict, is_derived
from model_core.types import CONTRASTS, Contrast

FEWEST_IMAGES: Final = 10
"""Fewer slices cannot hold a whole brain; a series of unknown length (0) is not refused."""
_SPACING_STEP_MM: Final = 0.5
"""Slices whose distance differs by less count as equally fine."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A judged series.

    Attributes:
        uid: what names it to the caller.
        facts: its tags.
        verdict: what it is held to be.
        problems: why it makes no volume; such a series is taken only by the caller's own choice.
    """

    uid: str
    facts: SeriesFacts
    verdict: Verdict
    problems: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether it may be taken without being asked for."""
        enough = self.facts.images == 0 or self.facts.images >= FEWEST_IMAGES
        return enough and not self.problems


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The series taken for each contrast.

    Attributes:
        chosen: contrast → uid.
        missing: the contrasts for which there is none.
        uncertain: the contrasts whose series a person should confirm.
        warnings: what was close or odd, for people.
    """

    chosen: Mapping[Contrast, str]
    missing: tuple[Contrast, ...] = ()
    uncertain: tuple[Contrast, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def complete(self) -> bool:
        """Whether there is a series for every contrast."""
        return not self.missing


def choose(
    candidates: Sequence[Candidate], override: Mapping[Contrast, str] | None = None
) -> Choice:
    """Take one series for each contrast.

    Args:
        candidates: the judged series of one study.
        override: contrast → uid, the caller's own choice; it is not judged again.

    Raises:
        OptionError: the override names no contrast, no series, or one series twice.
    """
    override = override or {}
    _check_override(override, candidates)
    free = [candidate for candidate in candidates if candidate.uid not in override.values()]
    chosen: dict[Contrast, Candidate] = {}
    uncertain: list[Contrast] = []
    warnings: list[str] = []
    for contrast in CONTRASTS:
        if contrast in override:
            chosen[contrast] = next(c for c in candidates if c.uid == override[contrast])
            continue
        ranked = _ranked(contrast, free)
        if not ranked:
            continue
        chosen[contrast] = ranked[0]
        tie = _tie(contrast, ranked)
        warnings += tie
        if tie or ranked[0].verdict.uncertain:
            uncertain.append(contrast)
    warnings += _order_warnings(chosen, override)
    return Choice(
        chosen=MappingProxyType({contrast: taken.uid for contrast, taken in chosen.items()}),
        missing=tuple(contrast for contrast in CONTRASTS if contrast not in chosen),
        uncertain=tuple(uncertain),
        warnings=tuple(warnings),
    )


def _check_override(override: Mapping[Contrast, str], candidates: Sequence[Candidate]) -> None:
    known = {candidate.uid for candidate in candidates}
    if any(contrast not in CONTRASTS for contrast in override):
        problem = "another name"
    elif any(uid not in known for uid in override.values()):
        problem = "a series that is not there"
    elif len(set(override.values())) < len(override):
        problem = "one series for two contrasts"
    else:
        return
    raise OptionError(
        "series",
        expected=f"for each of {', '.join(CONTRASTS)} at most one of the study's series",
        got=problem,
        way_out="Inspect the study first; it lists every series with its uid.",
    )


def _ranked(contrast: Contrast, candidates: Sequence[Candidate]) -> list[Candidate]:
    fitting = [c for c in candidates if c.usable and c.verdict.contrast == contrast]
    return sorted(fitting, key=lambda c: (*_quality(c), *_time(contrast, c)))


def _quality(candidate: Candidate) -> tuple[bool, bool, float, int]:
    """Less is better, in each place."""
    return (
        candidate.verdict.uncertain,
        is_derived(candidate.facts),
        _slice_distance(candidate.facts),
        -candidate.facts.images,
    )


def _slice_distance(facts: SeriesFacts) -> float:
    """In steps; where it is unknown, a 3-D acquisition counts as thin and a 2-D one as thick."""
    if facts.spacing_mm is None:
        return 1.0 / _SPACING_STEP_MM if facts.acquisition_type == "3D" else 6.0 / _SPACING_STEP_MM
    return float(round(max(facts.spacing_mm) / _SPACING_STEP_MM))


def _time(contrast: Contrast, candidate: Candidate) -> tuple[float, float]:
    sign = 1.0 if contrast == "t1" else -1.0
    facts = candidate.facts
    return sign * (facts.acquired or 0.0), sign * (facts.number or 0)


def _tie(contrast: Contrast, ranked: Sequence[Candidate]) -> list[str]:
    if len(ranked) < 2 or _quality(ranked[0]) != _quality(ranked[1]):
        return []
    which = "earliest" if contrast == "t1" else "latest"
    return [f"{contrast}: several series are equally good; the {which} was taken"]


def _order_warnings(
    chosen: Mapping[Contrast, Candidate], override: Mapping[Contrast, str]
) -> list[str]:
    """A T1 that came after the enhanced one was enhanced too, whatever its name says."""
    if "t1" not in chosen or "t1ce" not in chosen or {"t1", "t1ce"} <= set(override):
        return []
    native, enhanced = chosen["t1"].facts.acquired, chosen["t1ce"].facts.acquired
    if native is None or enhanced is None or native < enhanced:
        return []
    return ["t1: acquired after t1ce, so it may hold contrast agent too"]
