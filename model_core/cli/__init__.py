"""The ``segmamba`` command: one file a command, found through entry points (`main`).

Commands speak through `out` (results, stdout) and `err` (warnings and errors, stderr); everything
below the command line stays silent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rich.console import Console
from rich.text import Text

_Command = TypeVar("_Command", bound=Callable[..., object])


def out() -> Console:
    """The console for results; made anew so that it follows the current ``sys.stdout``."""
    return Console(highlight=False)


def err() -> Console:
    """The console for what is not a result: progress, warnings, errors."""
    return Console(stderr=True, highlight=False)


def say_error(message: str) -> None:
    """One red line on stderr, never wrapped and never read as markup."""
    err().print(Text(f"error: {' '.join(message.split())}", style="bold red"), soft_wrap=True)


def say_fault(error: Exception) -> None:
    """An expected error as such a line; of the system's, what it says of which file."""
    if isinstance(error, OSError):
        subject = f": {error.filename}" if error.filename else ""
        say_error(f"{error.strerror or error}{subject}")
    else:
        say_error(str(error))


def say_warning(message: str) -> None:
    """One yellow line on stderr."""
    err().print(Text(f"warning: {' '.join(message.split())}", style="yellow"), soft_wrap=True)


def examples(*lines: str) -> Callable[[_Command], _Command]:
    """Give a command examples, shown at the end of its ``--help``."""

    def attach(command: _Command) -> _Command:
        command.__dict__["examples"] = lines
        return command

    return attach


def epilog(*lines: str) -> str:
    """Examples as the end of a command's ``--help``, for a command inside a group."""
    return "\n".join(["Examples:", "```text", *lines, "```"])
