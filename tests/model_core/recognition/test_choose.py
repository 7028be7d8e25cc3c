"""One series for each contrast: what is preferred, what is said, what the caller may ask for."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from model_core.dicom.facts import SeriesFacts
from model_core.errors import OptionError
from model_core.recognition.choose import FEWEST_IMAGES, Candidate, choose
from model_core.recognition.rules import Verdict
from model_core.types import Contrast

PLAIN = SeriesFacts(
    modality="MR",
    image_type=("ORIGINAL", "PRIMARY"),
    images=30,
    spacing_mm=(0.5, 0.5, 5.0),
    acquired=100.0,
    number=3,
)


def candidate(
    uid: str, contrast: Contrast | None, *, uncertain: bool = False, **changes: Any
) -> Candidate:
    problems = changes.pop("problems", ())
    verdict = Verdict(contrast, 0.5 if uncertain else 0.9, "because", uncertain)
    return Candidate(uid=uid, facts=replace(PLAIN, **changes), verdict=verdict, problems=problems)


FOUR = (
    candidate("a", "t1"),
    candidate("b", "t1ce", acquired=900.0),
    candidate("c", "t2"),
    candidate("d", "flair"),
)


def test_four_clear_series_are_taken_without_a_word() -> None:
    choice = choose((*FOUR, candidate("x", None)))
    assert dict(choice.chosen) == {"t1": "a", "t1ce": "b", "t2": "c", "flair": "d"}
    assert choice.complete
    assert choice.missing == choice.uncertain == choice.warnings == ()


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({}, {"uncertain": True, "spacing_mm": (1.0, 1.0, 1.0)}),
        ({}, {"image_type": ("DERIVED", "SECONDARY", "MPR"), "spacing_mm": (1.0, 1.0, 1.0)}),
        ({"spacing_mm": (1.0, 1.0, 1.0)}, {"images": 300}),
        ({"spacing_mm": None, "acquisition_type": "3D"}, {"spacing_mm": None, "images": 99}),
        ({"images": 40}, {"images": 30}),
    ],
    ids=["certain", "original", "fine", "3-D", "more slices"],
)
def test_the_better_series_is_taken_in_any_order_and_at_any_time(
    better: dict[str, Any], worse: dict[str, Any]
) -> None:
    for times in ((1.0, 2.0), (2.0, 1.0)):
        pair = [
            candidate("good", "t2", **{**better, "acquired": times[0]}),
            candidate("bad", "t2", **{**worse, "acquired": times[1]}),
        ]
        for order in (pair, pair[::-1]):
            assert choose(order).chosen["t2"] == "good"
            assert choose(order).warnings == ()


@pytest.mark.parametrize(
    ("contrast", "taken"), [("t1", "first"), ("t1ce", "last"), ("t2", "last"), ("flair", "last")]
)
def test_of_equals_time_decides_and_that_is_said(contrast: Contrast, taken: str) -> None:
    equals = [
        candidate("last", contrast, acquired=300.0),
        candidate("first", contrast, acquired=100.0),
        candidate("middle", contrast, acquired=200.0),
    ]
    choice = choose(equals)
    assert choice.chosen[contrast] == taken
    assert choice.uncertain == (contrast,)
    assert "equally good" in choice.warnings[0]


def test_the_order_of_the_candidates_changes_nothing() -> None:
    many = [*FOUR, candidate("e", "t2", acquired=5.0), candidate("f", "t1", images=200)]
    first = choose(many)
    for seed in range(10):
        shuffled = random.Random(seed).sample(many, len(many))
        assert choose(shuffled) == first


def test_what_makes_no_volume_or_has_a_few_slices_only_is_not_taken() -> None:
    broken = candidate("broken", "t2", problems=("slices are missing",))
    few = candidate("few", "t2", images=FEWEST_IMAGES - 1)
    assert choose([broken, few]).missing == ("t1", "t1ce", "t2", "flair")
    assert choose([broken], {"t2": "broken"}).chosen["t2"] == "broken"
    assert choose([candidate("unknown", "t2", images=0)]).chosen["t2"] == "unknown"


def test_an_uncertain_series_is_taken_where_there_is_no_other_and_is_named() -> None:
    choice = choose((*FOUR[:3], candidate("d", "flair", uncertain=True)))
    assert choice.chosen["flair"] == "d"
    assert choice.uncertain == ("flair",)


def test_the_callers_choice_is_taken_and_not_used_twice() -> None:
    choice = choose(FOUR, {"flair": "c"})
    assert choice.chosen["flair"] == "c"
    assert choice.missing == ("t2",)


@pytest.mark.parametrize(
    "override", [{"t2": "nowhere"}, {"t2": "c", "flair": "c"}, {"pd": "c"}],
    ids=["unknown series", "one for two", "unknown contrast"],
)  # fmt: skip
def test_a_choice_that_cannot_be_is_refused_without_repeating_it(override: Any) -> None:
    with pytest.raises(OptionError) as refused:
        choose(FOUR, override)
    assert refused.value.argument == "series"
    assert "nowhere" not in str(refused.value)


def test_a_native_t1_that_came_after_the_enhanced_one_is_doubted() -> None:
    late = replace(FOUR[0], facts=replace(PLAIN, acquired=1000.0))
    assert choose((late, *FOUR[1:])).warnings == (
        "t1: acquired after t1ce, so it may hold contrast agent too",
    )
