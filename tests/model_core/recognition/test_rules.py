"""One series judged by its tags: right on the table, uncertain where wrong, no text repeated."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from model_core.dicom.facts import SeriesFacts
from model_core.recognition.rules import UNCERTAIN_BELOW, judge
from model_core.types import CONTRASTS
from tests.model_core.recognition.table import facts_of, is_kept_aside, part, table

MPRAGE = SeriesFacts(
    modality="MR",
    description="t1_mprage_sag",
    scanning_sequence=("GR", "IR"),
    image_type=("ORIGINAL", "PRIMARY", "M"),
    echo_time_ms=2.9,
    repetition_time_ms=2300.0,
    inversion_time_ms=900.0,
)
T2 = SeriesFacts(
    modality="MR",
    description="t2_tse_tra",
    scanning_sequence=("SE",),
    echo_time_ms=96.0,
    repetition_time_ms=5000.0,
)


def wrong(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What is judged wrongly, as (should be, was), and must be uncertain."""
    found = []
    for row in rows:
        verdict = judge(facts_of(row))
        if (verdict.contrast or "other") != row["contrast"]:
            assert verdict.uncertain, f"sure and wrong: {row['facts']['description']}"
            found.append((row["contrast"], row["facts"]["description"]))
    return found


def test_the_table_is_large_mixed_and_says_where_each_row_comes_from() -> None:
    rows, sources = table()["rows"], table()["sources"]
    assert len(rows) >= 90
    assert {row["contrast"] for row in rows} == {*CONTRASTS, "other"}
    assert len({row["language"] for row in rows}) >= 10
    assert {row["source"] for row in rows} == set(sources)
    assert {row["origin"] for row in rows} == {"header", "name", "made"}
    makers = " ".join(row["facts"].get("manufacturer", "") for row in rows).upper()
    assert all(name in makers for name in ("SIEMENS", "GE", "PHILIPS", "TOSHIBA", "HITACHI"))


def test_a_third_is_kept_aside_by_a_hash_of_the_facts_alone() -> None:
    assert all(row["held_out"] is is_kept_aside(row) for row in table()["rows"])
    assert 0.25 <= len(part(held_out=True)) / len(table()["rows"]) <= 0.42


@pytest.mark.parametrize("held_out", [False, True], ids=["tuned on", "kept aside"])
def test_nearly_all_series_are_recognised_and_every_error_is_uncertain(held_out: bool) -> None:
    rows = part(held_out=held_out)
    assert len(wrong(rows)) <= 0.05 * len(rows)


def test_certainty_is_the_rule_so_that_uncertain_means_something() -> None:
    rows = table()["rows"]
    assert sum(judge(facts_of(row)).uncertain for row in rows) <= 0.1 * len(rows)


def test_no_word_of_a_file_is_repeated_in_a_reason() -> None:
    for row in table()["rows"]:
        planted = replace(
            facts_of(row),
            description=f"{row['facts']['description']} Zyxplanted",
            protocol="Zyxplanted",
            manufacturer="Zyxplanted",
            sequence_name=f"zyxplanted{row['facts'].get('sequence_name', '')}",
            body_part="Zyxplanted brain",
            contrast_agent="Zyxplanted",
            acquisition_contrast="Zyxplanted",
        )
        assert "zyx" not in judge(planted).reason.lower()


@pytest.mark.parametrize("row", part(held_out=False), ids=lambda row: row["facts"]["description"])
def test_case_and_separators_do_not_matter(row: dict[str, Any]) -> None:
    facts = facts_of(row)
    for changed in (
        facts.description.upper(),
        re.sub(r"[ _]", "-", facts.description),
        facts.description.replace("_", "  "),
    ):
        assert judge(replace(facts, description=changed)) == judge(facts)


def test_confidence_lies_between_0_and_1_and_decides_certainty() -> None:
    for row in table()["rows"]:
        verdict = judge(facts_of(row))
        assert 0 <= verdict.confidence <= 1
        assert verdict.uncertain == (verdict.confidence < UNCERTAIN_BELOW)


def test_words_and_timing_that_contradict_are_both_said_and_uncertain() -> None:
    verdict = judge(replace(T2, description="t1_se_tra"))
    assert verdict.uncertain
    assert "named as T1" in verdict.reason
    assert "against: timing of a T2 spin echo" in verdict.reason


def test_the_agents_tag_makes_a_t1_enhanced_and_leaves_the_others_alone() -> None:
    assert judge(MPRAGE).contrast == "t1"
    assert judge(replace(MPRAGE, contrast_agent="GADOVIST")).contrast == "t1ce"
    assert judge(replace(T2, contrast_agent="GADOVIST")) == judge(T2)


@pytest.mark.parametrize("tag", ["", "NONE", "no", " None "])
def test_a_tag_that_names_no_agent_is_none(tag: str) -> None:
    assert judge(replace(MPRAGE, contrast_agent=tag)).contrast == "t1"


@pytest.mark.parametrize("tag", ["Unknown", "see notes"])
def test_a_tag_of_unknown_words_is_an_agent_only_where_the_name_says_so_too(tag: str) -> None:
    verdict = judge(replace(MPRAGE, contrast_agent=tag))
    assert (verdict.contrast, verdict.uncertain) == ("t1ce", True)
    assert "no known agent" in verdict.reason
    named = judge(replace(MPRAGE, description="t1 post gd", contrast_agent=tag))
    assert (named.contrast, named.uncertain) == ("t1ce", False)


def test_a_name_that_says_before_wins_over_the_tag_and_is_uncertain() -> None:
    verdict = judge(replace(MPRAGE, description="t1 pre", contrast_agent="GADOVIST"))
    assert (verdict.contrast, verdict.uncertain) == ("t1", True)
    assert "disagree" in verdict.reason


def test_the_protocol_of_a_whole_examination_says_nothing_about_the_agent() -> None:
    protocol = "BRAIN W/WO CONTRAST"
    assert judge(replace(MPRAGE, protocol=protocol)).contrast == "t1"
    assert judge(replace(MPRAGE, protocol="BRAIN WITH GAD")).contrast == "t1"


def test_a_reformat_has_the_contrast_of_its_source_with_less_confidence() -> None:
    made = replace(MPRAGE, image_type=("DERIVED", "SECONDARY", "MPR"))
    assert judge(made).contrast == "t1"
    assert judge(made).confidence < judge(MPRAGE).confidence


def test_a_series_that_tells_nothing_is_none_of_the_four_and_uncertain() -> None:
    verdict = judge(SeriesFacts(modality="MR", description="head"))
    assert (verdict.contrast, verdict.confidence, verdict.uncertain) == (None, 0.0, True)


def test_another_modality_is_none_of_the_four_for_sure() -> None:
    verdict = judge(replace(MPRAGE, modality="CT"))
    assert (verdict.contrast, verdict.confidence, verdict.uncertain) == (None, 1.0, False)
