"""Errors about archives travel between processes and say what a caller may know."""

from __future__ import annotations

import pickle

import pytest

from model_core.errors import InputError, SegMambaError
from service.dicomweb.errors import (
    ArchiveAnswerError,
    ArchiveError,
    ArchiveRefused,
    ArchiveUnreachable,
    StudyNotFoundError,
    StudyTooLargeError,
)

PARTS = {"expected": "a", "got": "b", "way_out": "c"}
ERRORS = (
    ArchiveUnreachable("pacs", "it is away."),
    ArchiveRefused("pacs", "it said no.", 403),
    ArchiveAnswerError("pacs", "it speaks another language."),
    StudyNotFoundError("study_uid", **PARTS),
    StudyTooLargeError("study", **PARTS),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_in_another_process(error: SegMambaError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_the_caller_is_to_blame_for_some_and_the_archive_for_the_others() -> None:
    assert [isinstance(error, ArchiveError) for error in ERRORS] == [True] * 3 + [False] * 2
    assert [isinstance(error, InputError) for error in ERRORS] == [False] * 3 + [True] * 2
    assert str(ERRORS[0]) == "archive pacs: it is away."
