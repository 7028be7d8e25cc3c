"""``segmamba`` with the client's commands, whether or not they are installed as entry points."""

from __future__ import annotations

from typing import Any

import typer

from model_core.cli.main import CommandGroup, _as_command


class Group(CommandGroup):
    """The real group, and so the real rendering of errors, with these commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        return ["segment", "submit", "jobs"]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from model_core.cli.segment import segment
        from service.client.cli import jobs, submit

        loaded = {"segment": segment, "submit": submit, "jobs": jobs}.get(cmd_name)
        return loaded and _as_command(cmd_name, loaded)


app = typer.Typer(
    name="segmamba", cls=Group, no_args_is_help=True, rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)  # fmt: skip


@app.callback()
def root() -> None:
    """The client's commands."""
