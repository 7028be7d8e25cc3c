from __future__ import annotations

import pytest

from model_core.errors import Cancelled
from model_core.preparation.watch import Watch, timed


def test_nobody_need_listen_and_nobody_need_ask() -> None:
    Watch().tell("register", 1, 3)
    Watch().stop_if_asked()


def test_a_watch_tells_and_stops() -> None:
    told: list[tuple[str, int, int]] = []
    watch = Watch(progress=lambda *words: told.append(words), cancelled=lambda: bool(told))
    watch.stop_if_asked()
    watch.tell("strip", 0)
    assert told == [("strip", 0, 1)]
    with pytest.raises(Cancelled):
        watch.stop_if_asked()


def test_a_clock_holds_the_seconds_of_its_block() -> None:
    with timed() as clock:
        assert clock.seconds == 0.0
    assert clock.seconds > 0.0
