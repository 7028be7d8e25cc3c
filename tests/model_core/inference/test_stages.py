"""Stages: timing, progress and cancelling."""

import pytest

from model_core.errors import Cancelled
from model_core.inference.stages import Stages


def test_a_stage_told_in_one_step_goes_from_none_to_one():
    told = []
    stages = Stages(lambda *step: told.append(step), None)
    with stages.told("restore"):
        assert told == [("restore", 0, 1)]
    assert told == [("restore", 0, 1), ("restore", 1, 1)]


def test_a_stage_that_tells_its_own_progress_is_only_timed():
    told = []
    stages = Stages(lambda *step: told.append(step), None)
    with stages.timed("infer"):
        pass
    with stages.timed("restore"):
        pass
    assert told == []
    assert list(stages.seconds) == ["infer", "restore"]
    assert min(stages.seconds.values()) >= 0


def test_a_stage_that_is_cancelled_never_begins():
    told = []
    stages = Stages(lambda *step: told.append(step), lambda: True)
    with pytest.raises(Cancelled), stages.told("prepare"):
        pytest.fail("the stage began")
    assert told == []
    assert stages.seconds == {}


def test_a_stage_that_failed_is_not_told_as_done():
    told = []
    stages = Stages(lambda *step: told.append(step), None)
    with pytest.raises(ZeroDivisionError), stages.told("prepare"):
        _ = 1 / 0
    assert told == [("prepare", 0, 1)]
    assert stages.seconds == {}
