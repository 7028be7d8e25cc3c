"""What a terminal shows of jobs on their way, and a pipe does not."""

from __future__ import annotations

from typing import Any

import pytest

from service.client.bars import MOST, JobBars, time_left
from service.client.job import Job
from service.client.task import describe


def a_job(state: str, **members: Any) -> Job:
    created = "2030-01-02T03:04:05Z"
    return Job.model_validate(
        {"id": "j", "state": state, "model": "m", "created": created} | members
    )


def test_a_job_is_described_by_its_place_or_its_windows() -> None:
    infer = {"stage": "infer", "done": 3, "total": 12}
    assert describe(a_job("queued", position=2)) == "place 2 in the queue"
    assert describe(a_job("queued")) == "queued"
    assert describe(a_job("running", progress=infer)) == "windows 3/12"
    assert describe(a_job("running", progress={"stage": "read"})) == "read"
    assert describe(a_job("running")) == "running"


def test_the_time_left_is_told_no_finer_than_it_is_known() -> None:
    told = [time_left(seconds) for seconds in (None, 0.4, 42.4, 200, 10_000)]
    assert told == ["", "about 0 s left", "about 42 s left", "about 3 min left", "about 3 h left"]


def test_a_terminal_sees_a_bar_for_each_of_the_first_jobs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with JobBars(total=MOST + 1) as bars:
        for number in range(MOST + 1):
            bars.show(f"[case] {number}", "place 1 in the queue", a_job("queued", eta_s=30))
        bars._progress.refresh()
        bars.end("[case] 0")
        bars.end(f"[case] {MOST}")
    drawn = capsys.readouterr().err
    assert "[case] 0: place 1 in the queue" in drawn
    assert "about 30 s left" in drawn
    assert f"[case] {MOST - 1}:" in drawn
    assert f"[case] {MOST}:" not in drawn


def test_the_bar_of_all_studies_tells_when_they_will_probably_be_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with JobBars(total=21) as bars:
        bars._began -= 60
        bars.end("A")
        bars._progress.refresh()
        assert "about 20 min left" in capsys.readouterr().err


def test_a_pipe_sees_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with JobBars(total=1) as bars:
        bars.show("A", "sending")
        bars.end("A")
    assert capsys.readouterr().err == ""
