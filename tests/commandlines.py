"""The commands of ``segmamba`` as they are, to hold documents and notebooks against."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import typer


@cache
def commands() -> dict[str, Any]:
    """Every command by its name."""
    from model_core.cli.main import app

    group: Any = typer.main.get_command(app)
    context = typer.Context(group)
    return {name: group.get_command(context, name) for name in group.list_commands(context)}


def options_of(command: Any) -> set[str]:
    """The option names of one command, those of its subcommands left out."""
    return {name for given in command.params for name in given.opts + given.secondary_opts}


def unknown_in(words: Sequence[str]) -> str:
    """What is wrong with the words after ``segmamba``; empty if all of it exists."""
    command = commands().get(words[0])
    if command is None:
        return f"no command {words[0]}"
    rest = words[1:]
    inner = getattr(command, "commands", {})
    if inner and not rest:
        return ""  # it shows its help
    if inner:
        if rest[0] not in inner:
            return f"{words[0]} has no subcommand {rest[0]}"
        command, rest = inner[rest[0]], rest[1:]
    wanted = {word.split("=")[0] for word in rest if re.match(r"^--?[a-z]", word)}
    missing = wanted - options_of(command)
    return f"{' '.join(words[:2])} has no {', '.join(sorted(missing))}" if missing else ""
