"""The options of the client's commands, with their help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

KEY_VARIABLE: Final = "SEGMAMBA_KEY"
SERVER_VARIABLE: Final = "SEGMAMBA_SERVER"
_SERVICE: Final = "The service"
_RUN: Final = "How to run"
_RESULTS: Final = "Waiting and going on"

Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        rich_help_panel=_SERVICE,
        envvar=SERVER_VARIABLE,
        help="The service, e.g. https://segmamba.example or http://127.0.0.1:8000.",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        metavar="FILE",
        rich_help_panel=_SERVICE,
        help="A file that holds your key and nothing else. (default: the variable "
        f"{KEY_VARIABLE}, if the service wants a key)",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        show_default="here, named after the study",
        help="Label map (.nii.gz); a folder for many studies.",
    ),
]
ServerModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        rich_help_panel=_RUN,
        help="A model that the service has. (default: the service's)",
    ),
]
Priority = Annotated[
    Literal["high", "normal", "low"] | None,
    typer.Option(
        metavar="CLASS",
        rich_help_panel=_RUN,
        help="high, normal or low: of two waiting jobs the higher begins first. (default: normal)",
    ),
]
Batch = Annotated[
    str | None,
    typer.Option(
        metavar="TOKEN",
        rich_help_panel=_RUN,
        help="A token that these jobs share: letters, digits, - and _; no person's name. "
        "(default: a random one)",
    ),
]
Cache = Annotated[
    bool | None,
    typer.Option(
        "--cache/--no-cache",
        rich_help_panel=_RUN,
        help="Take the result of an equal earlier job if there is one. (default: take it)",
    ),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait/--no-wait",
        rich_help_panel=_RESULTS,
        help="Wait for the results, or only hand the studies in.",
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False,
        metavar="FILE",
        rich_help_panel=_RESULTS,
        help="Go on with the run that this file remembers. If it is not there it is made, and "
        "stays when the run is over.",
    ),
]
CancelOnInterrupt = Annotated[
    bool,
    typer.Option(
        "--cancel-on-interrupt",
        rich_help_panel=_RESULTS,
        help="The first Ctrl-C cancels the jobs, not the second.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
