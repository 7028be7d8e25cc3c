from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from model_core.errors import Cancelled, StudyError
from model_core.preparation import together
from model_core.preparation.together import align_all
from model_core.preparation.watch import Watch
from tests.model_core.preparation.builders import head


def test_progress_counts_up_from_the_callers_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "align", lambda *_, contrast, stop: contrast)
    told: list[tuple[Any, ...]] = []

    def progress(*words: Any) -> None:
        told.append((*words, threading.current_thread() is threading.main_thread()))

    moving = {"t1": head("t1"), "t2": head("t2")}
    found = align_all(head("t1ce"), moving, Watch(progress=progress))
    assert {contrast: alignment for contrast, (alignment, _) in found.items()} == {
        "t1": "t1", "t2": "t2",
    }  # fmt: skip
    assert told[0] == ("register", 0, 2, True)
    assert told[-1] == ("register", 2, 2, True)


def test_one_that_fails_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, stopped = threading.Event(), threading.Event()

    def align(*_: Any, contrast: str, stop: Any) -> None:
        if contrast == "t1":
            assert begun.wait(60)
            raise StudyError("t1", expected="a", got="b", way_out="c")
        begun.set()
        while not stop():
            time.sleep(0.001)
        stopped.set()
        raise Cancelled

    monkeypatch.setattr(together, "align", align)
    monkeypatch.setattr(together, "usable_cpus", lambda: 2)
    with pytest.raises(StudyError, match="t1"):
        align_all(head("t1ce"), {"t1": head("t1"), "t2": head("t2")}, Watch())
    assert stopped.is_set()


def test_real_registrations_stop_when_the_caller_does() -> None:
    threads = threading.active_count()
    asked = iter([False, False])
    watch = Watch(cancelled=lambda: next(asked, True))
    with pytest.raises(Cancelled):
        align_all(head("t1ce"), {"t1": head("t1"), "t2": head("t2")}, watch)
    assert threading.active_count() == threads
