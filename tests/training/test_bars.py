"""Progress is for people at terminals: a pipe gets nothing."""

from __future__ import annotations

import io

from rich.console import Console

from training.bars import counting


def shown(*, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100)
    with counting(console, "preparing cases") as count:
        for done in (1, 2, 3):
            count("prepare", done, 3)
    return stream.getvalue()


def test_a_terminal_sees_what_is_counted_and_how_far_it_is() -> None:
    text = shown(terminal=True)
    assert "preparing cases" in text
    assert "3/3" in text


def test_a_pipe_and_no_console_see_nothing() -> None:
    assert shown(terminal=False) == ""
    with counting(None, "preparing cases") as count:
        count("prepare", 1, 1)
