"""What a run says: smoothed numbers, time left, every line in the log."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from training.runs.reporter import Reporter, StepReport, duration


def report(step: int, loss: float, progress: float = 0.25) -> StepReport:
    return StepReport(
        step=step, loss=loss, learning_rate=1e-3, gradient_norm=1.0, seconds=2.0,
        elapsed=600.0, progress=progress,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(40, "40 s"), (125, "2 min"), (3900, "1 h 05 min"), (float("inf"), "?")],
)
def test_durations_are_readable(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_time_left_follows_the_progress() -> None:
    assert report(1, 1.0, progress=0.25).seconds_left == 1800
    assert report(1, 1.0, progress=0.0).seconds_left == float("inf")


def test_a_pipe_gets_plain_lines_and_the_log_the_same(caplog: pytest.LogCaptureFixture) -> None:
    pipe = io.StringIO()
    speaker = Reporter(Console(file=pipe, width=200), log_seconds=0)
    with caplog.at_level(logging.INFO, logger="training"):
        speaker.start(10)
        speaker.step(report(1, 1.0))
        speaker.step(report(2, 0.5))
        speaker.stop()
    said = pipe.getvalue().splitlines()
    assert said == caplog.messages
    assert "step 2 · loss 0.9750" in said[1]  # 0.95 · 1.0 + 0.05 · 0.5
    assert "30 min left" in said[1]


def test_lines_are_spaced_in_time() -> None:
    pipe = io.StringIO()
    speaker = Reporter(Console(file=pipe), log_seconds=1000)
    for step in range(1, 6):
        speaker.step(report(step, 1.0))
    assert len(pipe.getvalue().splitlines()) == 1


def test_without_a_console_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    speaker = Reporter()
    speaker.step(report(1, 1.0))
    speaker.validation(1, {"case 1": {"WT": 0.5}}, {"WT": 0.5})
    assert capsys.readouterr().out == ""
