"""One series for each contrast, out of the series of DICOM files.

Files of several studies are told apart: the series of a choice are all of one study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from model_core.errors import OptionError
from model_core.recognition.choose import Candidate, Choice, choose
from model_core.recognition.rules import judge
from model_core.types import Contrast

if TYPE_CHECKING:
    from model_core.dicom.series import Series


def candidate_of(series: Series) -> Candidate:
    """A series, judged by its tags."""
    facts = series.facts
    return Candidate(uid=series.uid, facts=facts, verdict=judge(facts), problems=series.problems)


def select(series: Sequence[Series], override: Mapping[Contrast, str] | None = None) -> Choice:
    """Choose from the study that has the most contrasts; of equals, the first.

    Args:
        series: from `model_core.dicom.series.list_series`.
        override: contrast → uid, the caller's own choice.

    Raises:
        OptionError: the override names no contrast, no series, one twice, or several studies.
    """
    groups: dict[str, list[Candidate]] = {}
    for entry in series:
        groups.setdefault(entry.study_uid, []).append(candidate_of(entry))
    if override:
        named = {entry.study_uid for entry in series if entry.uid in override.values()}
        groups = {uid: group for uid, group in groups.items() if uid in named}
        _refuse_two_studies(groups)
    choices = [choose(group, override) for group in groups.values()]
    return min(choices, key=lambda choice: len(choice.missing)) if choices else choose(())


def _refuse_two_studies(groups: Mapping[str, object]) -> None:
    if len(groups) != 1:
        raise OptionError(
            "series",
            expected="series of one study that is among the files",
            got="series of several studies" if groups else "a series that is not there",
            way_out="Inspect the study first; it lists every series with its uid.",
        )
