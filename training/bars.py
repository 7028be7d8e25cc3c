"""Progress with the time left over countable work, on terminals only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Counted = Callable[[str, int, int], None]
"""Told of a stage's name, how many are done, and how many there are."""


@contextmanager
def counting(console: Console | None, what: str) -> Iterator[Counted]:
    """A bar called `what`; nothing where there is no terminal."""
    if console is None or not console.is_terminal:
        yield lambda _stage, _done, _total: None
        return
    columns = (
        TextColumn("{task.description}"), MofNCompleteColumn(), BarColumn(),
        TimeRemainingColumn(), TextColumn("left"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda _stage, done, total: bar.update(task, completed=done, total=total)
