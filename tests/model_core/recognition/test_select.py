"""Series of DICOM files chosen from: only ever those of one study."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from model_core.dicom.series import Series, list_series
from model_core.errors import OptionError
from model_core.imaging.volume import Volume
from model_core.recognition.rules import judge
from model_core.recognition.select import candidate_of, select
from model_core.types import CONTRASTS, Contrast
from tests.model_core.recognition.studies import uid, write_enhanced_study


@pytest.fixture(scope="module")
def series(
    brain: Mapping[Contrast, Volume], tmp_path_factory: pytest.TempPathFactory
) -> list[Series]:
    """An earlier study that lacks a contrast, and a later one that is complete."""
    folder = tmp_path_factory.mktemp("studies")
    part = {contrast: brain[contrast] for contrast in ("t1", "t1ce", "t2")}
    files = write_enhanced_study(folder / "a", part, "earlier")
    return list_series(files + write_enhanced_study(folder / "b", brain, "later"))


def test_a_candidate_is_the_series_with_its_verdict(series: list[Series]) -> None:
    for entry in series:
        candidate = candidate_of(entry)
        assert (candidate.uid, candidate.facts) == (entry.uid, entry.facts)
        assert candidate.verdict == judge(entry.facts)


def test_the_complete_study_is_chosen_from_in_any_order(series: list[Series]) -> None:
    expected = {contrast: uid(contrast, "later") for contrast in CONTRASTS}
    assert dict(select(series).chosen) == expected
    assert dict(select(series[::-1]).chosen) == expected


def test_the_callers_series_decides_the_study(series: list[Series]) -> None:
    choice = select(series, {"t2": uid("t2", "earlier")})
    assert choice.chosen["t1"] == uid("t1", "earlier")
    assert choice.missing == ("flair",)


@pytest.mark.parametrize(
    "override",
    [
        {"t2": uid("t2", "earlier"), "flair": uid("flair", "later")},
        {"t2": "1.2.3"},
        {"t2": uid("t2", "later"), "flair": uid("t2", "later")},
    ],
    ids=["two studies", "unknown", "one for two"],
)
def test_an_impossible_choice_is_refused(
    series: list[Series], override: dict[Contrast, str]
) -> None:
    with pytest.raises(OptionError) as refused:
        select(series, override)
    assert refused.value.argument == "series"
    assert "1.2.3" not in str(refused.value)


def test_of_nothing_everything_is_missing() -> None:
    assert select([]).missing == CONTRASTS
