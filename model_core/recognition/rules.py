"""Which contrast a series is, judged by its tags: words, timing, sequence, image type, agent.

Every source of evidence casts one vote for T1, T2, FLAIR or something else. Votes for one kind add
up as independent evidence does, votes for another take away, and a verdict that is contradicted or
rests on little is marked uncertain. Whether a T1 is native or enhanced is a second question, put to
the agent's tag and to the words.

A verdict's reason is of a fixed vocabulary; no text of the file is repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import Final

from model_core.dicom.facts import SeriesFacts
from model_core.recognition.timing import Kind, read_timing
from model_core.recognition.words import Words, knows_agent, names_agent, read_words
from model_core.types import Contrast

UNCERTAIN_BELOW: Final = 0.6
"""A verdict of less confidence is for a person to confirm."""
_CONTRAST_OF: Final[Mapping[Kind, Contrast | None]] = MappingProxyType(
    {"t1": "t1", "t2": "t2", "flair": "flair", "other": None}
)
_NAMES: Final[Mapping[str, str]] = MappingProxyType({"t1": "T1", "t2": "T2", "flair": "FLAIR"})

IMAGE_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ADC": "diffusion", "TRACEW": "diffusion", "TRACE": "diffusion", "FA": "diffusion",
        "DIFFUSION": "diffusion", "TENSOR": "diffusion", "EADC": "diffusion",
        "PERFUSION": "perfusion", "ASL": "perfusion", "RCBV": "perfusion", "CBV": "perfusion",
        "CBF": "perfusion", "RCBF": "perfusion", "MTT": "perfusion", "TTP": "perfusion",
        "P": "a phase image", "PHASE": "a phase image", "PHASE MAP": "a phase image",
        "R": "a real or imaginary part", "I": "a real or imaginary part",
        "MNIP": "a projection", "MIP": "a projection", "MINIP": "a projection",
        "PROJECTION IMAGE": "a projection", "SUBTRACTION": "a subtraction", "SUB": "a subtraction",
        "LOCALIZER": "a localiser", "T1 MAP": "a map of a quantity",
        "T2 MAP": "a map of a quantity", "T2_STAR MAP": "a map of a quantity",
        "SPECTROSCOPY": "spectroscopy", "FMRI": "functional imaging", "SCREEN SAVE": "a picture",
        "CSA REPORT": "a report",
    }
)  # fmt: skip
"""Values of ImageType (PS3.3 C.7.6.1.1.2, C.8.3.1.1.1 and vendors' own) that are no structure."""
ACQUISITION_CONTRASTS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "T1": "t1", "T2": "t2", "FLUID_ATTENUATED": "flair", "DIFFUSION": "other",
        "PERFUSION": "other", "PROTON_DENSITY": "other", "T2_STAR": "other", "STIR": "other",
        "TOF": "other", "FLOW_ENCODED": "other", "MT": "other", "TAGGING": "other",
        "TEMPERATURE": "other", "ELASTICITY": "other",
    }
)  # fmt: skip
"""AcquisitionContrast of enhanced objects (PS3.3 C.8.13.3.1.1)."""
SEQUENCE_NAMES: Final[tuple[tuple[str, Kind, float], ...]] = (
    ("swi", "other", 0.8), ("ep_b", "other", 0.8), ("epfid", "other", 0.8), ("ep2d", "other", 0.8),
    ("epi", "other", 0.7), ("ci3d", "other", 0.8), ("svs", "other", 0.9), ("csi", "other", 0.9),
    ("fm2d", "other", 0.8), ("tgse", "other", 0.7), ("fl3d1r", "other", 0.5),
    ("tfl3d", "t1", 0.6), ("spcir", "flair", 0.5),
)  # fmt: skip
"""Parts of SequenceName, as Siemens and Toshiba give them, in lower case; the first counts."""
REFORMATTED: Final = ("MPR", "REFORMATTED", "CSA MPR")
HEAD_PARTS: Final = ("HEAD", "BRAIN", "SKULL", "NEURO", "CEREBR", "ENCEPH", "KOPF", "SCHAEDEL")


@dataclass(frozen=True)
class Verdict:
    """What one series is held to be.

    Attributes:
        contrast: one of the four, or None for anything else.
        confidence: 0 to 1; below `UNCERTAIN_BELOW` a person should look.
        reason: the evidence, in words of a fixed vocabulary.
        uncertain: little confidence, or evidence that contradicts itself.
    """

    contrast: Contrast | None
    confidence: float
    reason: str
    uncertain: bool


@dataclass(frozen=True)
class Vote:
    """One source's opinion: the kind, how far the source is to be trusted, how to say it."""

    kind: Kind
    weight: float
    says: str


def judge(facts: SeriesFacts) -> Verdict:
    """Judge one series by its tags.

    Args:
        facts: what `model_core.dicom.series` read, or a description alone.

    Returns:
        The contrast with its confidence and reason. A reformatted series has the contrast of what
        it was made from, with less confidence than an original.
    """
    if facts.modality not in ("MR", ""):
        return Verdict(None, 1.0, "not a magnetic resonance image", uncertain=False)
    words = _best_words(facts)
    votes = [vote for vote in _votes(facts, words) if vote]
    if not votes:
        return Verdict(None, 0.0, "neither words nor timing tell what it is", uncertain=True)
    verdict = _counted(votes)
    if verdict.contrast == "t1":
        verdict = _native_or_enhanced(verdict, facts, words)
    return _finished(verdict, facts)


def _best_words(facts: SeriesFacts) -> Words:
    """The description's words; the protocol's where the description tells no kind.

    A protocol may be the whole examination's (``Brain w/wo contrast``), so its word about the agent
    counts only where it names a T1 too, and only where the description says nothing.
    """
    described, protocol = read_words(facts.description), read_words(facts.protocol)
    kind = protocol if described.silent else described
    agent = described.agent
    if agent is None and "t1" in protocol.weightings:
        agent = protocol.agent
    return replace(kind, agent=agent)


def _votes(facts: SeriesFacts, words: Words) -> Iterable[Vote | None]:
    yield _vote_of_words(words, facts)
    yield _vote_of_image_type(facts)
    yield _vote_of_acquisition_contrast(facts)
    yield _vote_of_sequence(facts)
    yield _vote_of_body_part(facts)
    timing = read_timing(facts)
    yield Vote(timing.kind, timing.weight, timing.says) if timing else None


def _vote_of_words(words: Words, facts: SeriesFacts) -> Vote | None:
    if words.other:
        return Vote("other", 0.95, f"named as {words.other}")
    if words.proton_density:
        # One echo of two is proton density, the other T2: the timing of each tells.
        return None if words.weightings else Vote("other", 0.85, "named as proton density")
    kind = _kind_of(words, facts)
    return Vote(kind, 0.85, f"named as {_NAMES[kind]}") if kind else None


def _kind_of(words: Words, facts: SeriesFacts) -> Kind | None:
    """``T2 FLAIR`` is a FLAIR, ``T1 FLAIR`` is a T1; T1 and T2 together tell nothing."""
    named = words.weightings
    if {"t1", "t2"} <= named:
        return None
    if {"t1", "flair"} <= named:
        timing = read_timing(facts)
        return "flair" if timing and timing.kind == "flair" else "t1"
    if "flair" in named:
        return "flair"
    return next(iter(named), None)


def _vote_of_image_type(facts: SeriesFacts) -> Vote | None:
    for value in facts.image_type[2:]:
        if value.upper() in IMAGE_TYPES:
            return Vote("other", 0.9, f"image type of {IMAGE_TYPES[value.upper()]}")
    bare = len(facts.image_type) == 2 and facts.image_type[0] == "DERIVED"
    if bare and facts.image_type[1] == "SECONDARY" and facts.echo_time_ms is None:
        return Vote("other", 0.7, "image type of something computed")
    return None


def _vote_of_acquisition_contrast(facts: SeriesFacts) -> Vote | None:
    kind = ACQUISITION_CONTRASTS.get(facts.acquisition_contrast.upper())
    if not kind:
        return None
    says = f"acquisition contrast {_NAMES[kind]}" if kind in _NAMES else "another contrast"
    return Vote(kind, 0.9, says)


def _vote_of_sequence(facts: SeriesFacts) -> Vote | None:
    name = facts.sequence_name.lower()
    for part, kind, weight in SEQUENCE_NAMES:
        if part in name:
            says = f"sequence of {_NAMES[kind]}" if kind in _NAMES else "sequence of another kind"
            return Vote(kind, weight, says)
    return None


def _vote_of_body_part(facts: SeriesFacts) -> Vote | None:
    part = facts.body_part.upper()
    if not part or any(word in part for word in HEAD_PARTS):
        return None
    return Vote("other", 0.7, "body part that is not the head")


def _counted(votes: list[Vote]) -> Verdict:
    """Add the votes up; `_finished` tells whether the sum is certain.

    A kind that is none of the four is hardly contradicted by a timing: a diffusion image has that
    of a T2, a map that of its source.
    """
    support = {kind: _support(votes, kind) for kind in _CONTRAST_OF}
    winner, second = sorted(support, key=lambda kind: -support[kind])[:2]
    against = support[second] * (0.3 if winner == "other" else 1.0)
    confidence = support[winner] * (1.0 - against)
    voted = [vote for vote in votes if vote.kind == winner]
    against_it = [vote for vote in votes if vote.kind != winner]
    reason = "; ".join(vote.says for vote in voted)
    if against_it:
        reason += ", against: " + "; ".join(vote.says for vote in against_it)
    return Verdict(_CONTRAST_OF[winner], confidence, reason, uncertain=True)


def _support(votes: list[Vote], kind: str) -> float:
    return 1.0 - prod(1.0 - vote.weight for vote in votes if vote.kind == kind)


def _native_or_enhanced(verdict: Verdict, facts: SeriesFacts, words: Words) -> Verdict:
    """Ask the agent's tag and the words; where they disagree, a clear "before" in the name wins.

    Some scanners keep the agent's tag for all series once the agent was entered.
    """
    tag, said = names_agent(facts.contrast_agent), words.agent
    if tag is not None and said is not None and tag != said:
        contrast: Contrast = "t1ce" if said else "t1"
        trust, says = 0.5, "the name and the agent's tag disagree about contrast agent"
    elif tag and not said and not knows_agent(facts.contrast_agent):
        contrast, trust, says = "t1ce", 0.5, "the agent's tag names no known agent"
    elif tag or said:
        contrast, trust = "t1ce", 0.97
        says = "contrast agent in its tag" if tag else "named as after contrast agent"
    elif said is False or tag is False:
        contrast, trust, says = "t1", 0.97, "without contrast agent"
    else:
        contrast, trust, says = "t1", 0.85, "no sign of contrast agent"
    return replace(
        verdict,
        contrast=contrast,
        confidence=verdict.confidence * trust,
        reason=f"{verdict.reason}; {says}",
    )


def _finished(verdict: Verdict, facts: SeriesFacts) -> Verdict:
    """Trust what was made from another series less, and tell what is certain."""
    confidence, reason = verdict.confidence, verdict.reason
    if verdict.contrast and is_derived(facts):
        confidence, reason = confidence * 0.9, f"{reason}; made from another series"
    confidence = round(confidence, 3)
    return Verdict(verdict.contrast, confidence, reason, uncertain=confidence < UNCERTAIN_BELOW)


def is_derived(facts: SeriesFacts) -> bool:
    """Tell whether the images were computed from others, by a reformat for instance."""
    types = [value.upper() for value in facts.image_type]
    return "DERIVED" in types[:1] or any(value in REFORMATTED for value in types)
