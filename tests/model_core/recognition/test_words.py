"""Names of series brought to one form and read, in many languages."""

from __future__ import annotations

import pytest

from model_core.recognition.words import knows_agent, names_agent, normalised, read_words


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("T1+C", "t1 + c"),
        ("3DT1_GADO", "3d t1 gado"),
        ("t2_tirm_tra_dark-fluid", "t2 tirm tra dark fluid"),
        ("T1 PÓS-CONTRASTE", "t1 pos contraste"),
        ("T1post", "t1 post"),
        ("T2FLAIR", "t2 flair"),
        ("  ", ""),
    ],
)
def test_a_name_is_brought_to_one_form_and_stays_there(text: str, plain: str) -> None:
    assert normalised(text) == plain
    assert normalised(plain) == plain


@pytest.mark.parametrize(
    "text",
    [
        "T1 post", "T1+C", "T1 C+", "t1_mprage_KM", "t1 nach KM", "T1 GADO", "T1 apres injection",
        "T1 con contraste", "T1 dopo mdc", "T1 na Gd", "T1 pós gad", "T1 +K", "T1 efter Gd",
        "T1 med kontrast", "T1 po kontrascie", "T1 KONTRASTLI", "T1 с контрастом", "造影T1", "T1ce",
        "T1 Dotarem", "AX BRAVO POST",
    ],
)  # fmt: skip
def test_words_for_after_the_agent_are_known(text: str) -> None:
    assert read_words(text).agent is True


@pytest.mark.parametrize(
    "text",
    [
        "T1 pre", "T1 without contrast", "T1 W/O", "T1 non-contrast", "t1 nativ", "t1 ohne KM",
        "T1 sans injection", "T1 sin contraste", "T1 senza mdc", "T1 blanco", "T1 zonder Gd",
        "T1 sem contraste", "T1 utan Gd", "T1 uden kontrast", "T1 bez kontrastu", "T1 KONTRASTSIZ",
        "T1 без контраста", "単純T1", "T1 C-",
    ],
)  # fmt: skip
def test_words_for_before_the_agent_win_over_the_agents_own(text: str) -> None:
    assert read_words(text).agent is False


@pytest.mark.parametrize("text", ["T1", "T1 post-op", "T1 w/wo contrast", "AX T1 C7", "t1 cor"])
def test_what_is_not_about_the_agent_says_nothing_of_it(text: str) -> None:
    assert read_words(text).agent is None


@pytest.mark.parametrize(
    "text",
    ["Ax T2 thin AC-PC", "sub-01 T2", "T2 LONGTR", "t2_space_iso", "T2 PETRA", "T2 diffs"],
)
def test_parts_of_longer_words_are_not_words(text: str) -> None:
    words = read_words(text)
    assert words.other is None
    assert words.weightings == {"t2"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("T2*", "susceptibility"),
        ("t2_fl2d_tra_hemo", "susceptibility"),
        ("AX DIFFUSION b1000", "diffusion"),
        ("3D TOF", "angiography"),
        ("pCASL", "perfusion"),
        ("localizer", "a localiser or calibration"),
        ("SUB T1 post-pre", "a subtraction"),
    ],
)
def test_other_kinds_are_named_before_the_weighting_in_their_names(text: str, kind: str) -> None:
    assert read_words(text).other == kind


def test_the_agents_tag_tells_given_none_or_nothing() -> None:
    assert names_agent(None) is None
    assert names_agent("None") is False
    assert names_agent("10 ML GADAVIST") is True


@pytest.mark.parametrize(
    "text",
    [
        "T1 no gd", "T1 NON GAD", "T1 no IV contrast", "T1 no Dotarem", "T1 - C", "T1W -C",
        "T1 -GD", "T1 not enhanced", "T1 non-enhanced", "T1 before contrast", "T1 before Gd",
        "T1 prior to contrast", "T1 kontrastmittelfrei", "T1 contrast-free", "T1 fara contrast",
        "T1 до контраста", "T1 造影前", "T1 造影なし", "平扫 T1", "T1 增强前",
    ],
)  # fmt: skip
def test_an_agent_that_is_denied_was_not_given(text: str) -> None:
    assert read_words(text).agent is False


@pytest.mark.parametrize("text", ["T1+", "T1W +", "T1 增强", "T1 造影后", "T1 1.0 GAD", "T1 - Gd"])
def test_an_agent_that_is_not_denied_was_given(text: str) -> None:
    assert read_words(text).agent is True


@pytest.mark.parametrize("text", ["T1+T2 map", "T1 平扫+增强", "T1 before op"])
def test_a_plus_or_a_before_of_something_else_says_nothing_of_the_agent(text: str) -> None:
    assert read_words(text).agent is None


@pytest.mark.parametrize(
    "tag",
    [
        "N/A", "--", "No contrast", "NOT GIVEN", "None administered", "ohne", "kein KM", "sans",
        "No Contrast Agent Administered", "no gadolinium", "without Gadovist", "0 ml", "0.0 ML",
        "Gadovist 0 ml",
    ],
)  # fmt: skip
def test_a_tag_that_denies_an_agent_is_none(tag: str) -> None:
    assert names_agent(tag) is False


@pytest.mark.parametrize(
    "tag",
    [
        "GADOVIST", "Gd-DTPA", "Dotarem 0.5 mmol/ml", "7.0 ml", "Yes", "IV", "contrast", "KM",
        "MultiHance", "ANONYMIZED",
    ],
)  # fmt: skip
def test_agents_doses_and_a_yes_in_the_tag_are_known(tag: str) -> None:
    assert names_agent(tag) is True
    assert knows_agent(tag)


@pytest.mark.parametrize(
    "tag", ["Unknown", "not known", "see notes", "w/wo", "Gadovist, pre-filled"]
)
def test_other_words_in_the_tag_are_neither_a_known_agent_nor_none(tag: str) -> None:
    assert names_agent(tag) is True
    assert not knows_agent(tag)


def test_of_an_endless_name_only_the_beginning_is_read() -> None:
    assert read_words("T1 " + "t2 a " * 1_000_000 + "eg").weightings == {"t1", "t2"}
    assert read_words("x" * 300 + " T1").silent
