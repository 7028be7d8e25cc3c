"""The ``segmamba`` command line: finds the commands, runs one, turns errors into one clear line.

Commands come from the entry-point group ``segmamba.commands`` (name → a typer function or app), so
this room imports neither the service nor the training. A command is imported when it is needed; one
that cannot be imported says why and harms no other.

Exit codes: 0 done · 1 done with failures (some studies, a failed check) · 2 wrong input or usage ·
130 stopped by the user.
"""

from __future__ import annotations

import importlib.metadata
import os
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from model_core.cli import epilog, err, say_error, say_fault
from model_core.errors import Cancelled, SegMambaError

GROUP: Final = "segmamba.commands"
ORDER: Final = (
    "demo", "inspect", "segment", "report", "replay", "evaluate", "models", "import", "phantom",
    "doctor", "bench", "serve", "api", "worker", "keys", "submit", "jobs", "dicom", "mcp", "data",
    "train", "runs", "predict", "tta", "postprocess", "visualize", "export",
)  # fmt: skip
"""The order in ``--help``; commands of other packages follow by name."""


class CommandGroup(TyperGroup):
    """The commands of the entry-point group, each imported when it is asked for.

    Contexts and commands are ``Any`` here: their types are typer's private copy of click.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the interface asks for it
        """Names in the order in which a newcomer meets them."""
        names = {entry.name for entry in importlib.metadata.entry_points(group=GROUP)}
        known = [name for name in ORDER if name in names]
        return known + sorted(names.difference(known))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - likewise
        """The command, a stand-in that tells why it cannot be loaded, or None if unknown."""
        entries = importlib.metadata.entry_points(group=GROUP, name=cmd_name)
        if not entries:
            return None
        try:
            loaded = next(iter(entries)).load()
        except Exception as error:  # noqa: BLE001 - a broken plug-in must not break the others
            return _broken(cmd_name, error)
        return _as_command(cmd_name, loaded)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; expected errors become one line and an exit code."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Cancelled):
            err().print("\nstopped; nothing more was written", style="yellow")
            _leave(130)
        except (SegMambaError, OSError) as error:
            if os.environ.get("SEGMAMBA_DEBUG"):
                raise
            say_fault(error)
            _leave(2)


app = typer.Typer(
    name="segmamba",
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `segmamba demo`. Set `SEGMAMBA_DEBUG=1` for full tracebacks.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"segmamba {importlib.metadata.version('segmamba-service')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Segment brain tumours in MRI studies, with or without a GPU. Not a medical device."""


def main() -> None:
    """The console script."""
    app()


def _as_command(name: str, loaded: Any) -> Any:
    if not isinstance(loaded, typer.Typer):
        function, loaded = loaded, typer.Typer(rich_markup_mode="markdown", add_completion=False)
        loaded.command(name, epilog=_epilog(function))(function)
    command = typer.main.get_command(loaded)
    command.name = name
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    return command


def _epilog(function: Any) -> str | None:
    lines = getattr(function, "examples", ())
    return epilog(*lines) if lines else None


def _broken(name: str, error: Exception) -> Any:
    reason = f"segmamba {name} cannot be loaded here ({type(error).__name__}: {error})"

    def refuse(arguments: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
        del arguments
        if os.environ.get("SEGMAMBA_DEBUG"):
            raise error
        say_error(f"{reason}. Install what is missing; SEGMAMBA_DEBUG=1 shows where it failed.")
        _leave(2)

    stand_in = typer.Typer(add_completion=False)
    stand_in.command(
        name,
        help=f"Not available here: {type(error).__name__}: {error}",
        short_help="not available here; call it to see why",
        context_settings={"ignore_unknown_options": True},
    )(refuse)
    return _as_command(name, stand_in)


def _leave(code: int) -> NoReturn:
    raise typer.Exit(code)
