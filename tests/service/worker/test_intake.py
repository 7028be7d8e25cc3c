"""What a worker does between the files of a job and the network."""

from __future__ import annotations

from service.worker.intake import _SignOfLife


def test_who_is_asked_to_stop_is_alive_and_says_at_what() -> None:
    told: list[tuple[str, int, int]] = []
    answers = iter((False, False, True))
    sign = _SignOfLife(lambda *step: told.append(step), lambda: next(answers))
    sign.progress("strip", 0, 1)
    assert not sign.cancelled()
    assert not sign.cancelled()
    assert sign.cancelled()
    assert told == [("strip", 0, 1)] * 4
