"""``segmamba mcp``: a running service's operations for an assistant, over stdin and stdout."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer

from model_core.cli import examples
from model_core.errors import OptionError
from service.client.options import KeyFile, Server

_PATIENCE_S: Final = 10.0
"""An assistant waits for an answer; a service that is away is told of, not waited for."""


@examples(
    "segmamba mcp --server http://127.0.0.1:8000                       (models and jobs)",
    "segmamba mcp --server http://127.0.0.1:8000 --folder studies/     (and inspect them)",
    "segmamba mcp --server … --folder studies/ --allow-segment         (and make jobs)",
)
def mcp(
    server: Server = None,
    key_file: KeyFile = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            metavar="PATH",
            help="The assistant may name studies below this folder, and no other file.",
        ),
    ] = None,
    allow_segment: Annotated[
        bool,
        typer.Option(
            "--allow-segment",
            help="Offer the tools that make and cancel jobs too; without it there are none.",
        ),
    ] = False,
) -> None:
    """Offer a running service to an assistant that speaks the Model Context Protocol (MCP).

    An assistant's program starts this command and speaks with it over stdin and stdout; it is not
    for typing. Without --allow-segment everything only reads. Answers hold no path, UID or name of
    a patient. For research use only.
    """
    _require_package()
    if allow_segment and folder is None:
        raise OptionError(
            "--allow-segment",
            expected="--folder beside it",
            got="none",
            way_out="Name the folder whose studies may be segmented.",
        )
    from service.assistant.folder import AllowedFolder
    from service.assistant.server import make_server
    from service.client.connect import connect
    from service.client.wire import Patience

    patience = Patience(outage_s=_PATIENCE_S, first_contact_s=_PATIENCE_S / 2, busy_s=_PATIENCE_S)
    allowed = AllowedFolder(folder) if folder is not None else None
    with connect(server, key_file, patience=patience) as client:
        make_server(client, allowed, allow_segment=allow_segment).run("stdio")


def _require_package() -> None:
    if find_spec("mcp") is None:
        raise OptionError(
            "mcp",
            expected="the official MCP package",
            got="none installed",
            way_out='Install it: pip install "segmamba-service[mcp]"',
        )
