"""The timing of a sequence: the kinds do not run into each other, and gaps are gaps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model_core.dicom.facts import SeriesFacts
from model_core.recognition.timing import TIMINGS, has_inversion, read_timing

SPIN_ECHO = SeriesFacts(scanning_sequence=("SE",), repetition_time_ms=4000.0)


def kind(facts: SeriesFacts) -> str | None:
    timing = read_timing(facts)
    return timing.kind if timing else None


def test_a_longer_echo_time_leads_from_proton_density_to_t2_with_a_gap_between() -> None:
    kinds = [kind(replace(SPIN_ECHO, echo_time_ms=te)) for te in (12.0, 30.0, 52.0, 80.0, 120.0)]
    assert kinds == ["other", "other", None, "t2", "t2"]


def test_an_inversion_makes_a_t2_a_flair_and_a_short_one_a_fat_image() -> None:
    t2 = replace(SPIN_ECHO, echo_time_ms=100.0, repetition_time_ms=9000.0)
    inverted = replace(t2, scanning_sequence=("SE", "IR"))
    assert kind(t2) == "t2"
    assert kind(inverted) == "flair"
    assert kind(replace(inverted, inversion_time_ms=2500.0)) == "flair"
    assert kind(replace(inverted, inversion_time_ms=160.0)) == "other"
    assert kind(replace(inverted, inversion_time_ms=0.0)) == "flair"


@pytest.mark.parametrize("sequence", [("EP",), ("EP", "SE"), ("EP", "GR")])
def test_an_echo_planar_image_is_none_of_the_four_at_any_timing(sequence: tuple[str, ...]) -> None:
    facts = SeriesFacts(scanning_sequence=sequence, echo_time_ms=80.0, repetition_time_ms=5000.0)
    assert kind(facts) == "other"


def test_without_an_echo_time_only_an_echo_planar_sequence_tells_anything() -> None:
    assert kind(SPIN_ECHO) is None
    assert kind(SeriesFacts()) is None
    assert kind(SeriesFacts(scanning_sequence=("EP",))) == "other"


def test_an_inversion_is_known_by_the_sequence_or_by_its_time() -> None:
    assert has_inversion(SeriesFacts(scanning_sequence=("SE", "IR")))
    assert has_inversion(SeriesFacts(inversion_time_ms=450.0))
    assert not has_inversion(SeriesFacts(inversion_time_ms=0.0))


def test_every_line_of_the_table_can_be_trusted_to_a_part_and_has_a_true_range() -> None:
    for line in TIMINGS:
        assert 0 < line.weight < 1
        for low, high in (line.te_ms, line.tr_ms, line.ti_ms, line.flip_deg):
            assert 0 <= low < high
