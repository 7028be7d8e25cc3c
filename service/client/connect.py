"""From the options of a command to a client of the server that they name."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from model_core.cli import say_warning
from model_core.errors import OptionError
from service.client.options import KEY_VARIABLE, SERVER_VARIABLE

if TYPE_CHECKING:
    from service.client.client import Client
    from service.client.wire import Patience


def connect(
    server: str | None, key_file: Path | None, *, patience: Patience | None = None
) -> Client:
    """A client of the server that was named; without a key file, the environment has the key.

    Args:
        server: its address.
        key_file: a file with the caller's key.
        patience: how long to ask again; the client's own by default.

    Raises:
        OptionError: no server, or an address or a key that cannot be one.
    """
    from service.client.client import Client
    from service.client.wire import Patience

    if not server:
        raise OptionError(
            "--server",
            expected="the address of a service",
            got="none",
            way_out=f"Name it, or set {SERVER_VARIABLE}. To run a service here: segmamba serve",
        )
    key = _key_in(key_file) if key_file else os.environ.get(KEY_VARIABLE) or None
    client = Client(server, key=key, patience=patience or Patience())
    if key and not _sheltered(server):
        say_warning("your key and the images travel unencrypted: ask for an https address")
    return client


def _key_in(file: Path) -> str:
    return file.read_text(encoding="ascii", errors="replace").strip()


def _sheltered(server: str) -> bool:
    """Whether nobody on the way can read along."""
    parts = urlsplit(server)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
