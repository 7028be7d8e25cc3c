"""The archives that an operator has configured: name and address, and credentials apart from both.

Addresses come from a setting, credentials from the environment (``SEGMAMBA_DICOMWEB_<NAME>_USER``
and ``…_PASSWORD``, or ``…_TOKEN``). A caller chooses a name among them and can reach nothing else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from model_core.errors import OptionError

ARGUMENT: Final = "dicomweb_servers"
VARIABLE: Final = "SEGMAMBA_DICOMWEB"
"""Beginning of the variables that hold credentials."""
UNNAMED: Final = "given"
"""Name of an archive whose address was given on the command line."""

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_UID: Final = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")
_EXAMPLE: Final = "Write name=https://pacs.example/dicom-web, several with commas between them."


@dataclass(frozen=True, kw_only=True)
class DicomwebServer:
    """One archive that speaks DICOMweb, valid once it exists.

    Attributes:
        name: what callers call it: small letters, digits and hyphens.
        url: root of its services, e.g. ``https://pacs.example/dicom-web``.
        user: for HTTP basic authentication, with `password`.
        password: likewise.
        token: for ``Authorization: Bearer``; goes before user and password.
        timeout_s: longest silence of the archive within one answer, in seconds.

    Raises:
        OptionError: a name or an address that cannot be one, or half a credential.
    """

    name: str
    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise _refused("a name of small letters, digits and hyphens", "another one", _EXAMPLE)
        _check_url(self.url)
        object.__setattr__(self, "url", self.url.rstrip("/"))
        if (self.user is None) != (self.password is None):
            raise _refused(
                f"user and password of {self.name} together",
                "one of them",
                f"Set both {_variable(self.name, 'USER')} and {_variable(self.name, 'PASSWORD')}.",
            )
        for secret in (self.user, self.password, self.token):
            if secret is not None and not (secret and secret.isprintable()):
                raise _refused(
                    f"credentials of {self.name} in printable characters",
                    "an empty one, or others",
                    "A line break at the end of a secret is the usual reason.",
                )


def parse_servers(
    text: str, environment: Mapping[str, str] | None = None
) -> Mapping[str, DicomwebServer]:
    """Read the setting that lists archives.

    Args:
        text: ``name=url`` with commas between several, or a JSON object of names and addresses;
            an empty text lists none.
        environment: where credentials are looked for; the process's own when not given.

    Returns:
        The archives by name, in the order of the text.

    Raises:
        OptionError: what cannot be read, and why; no message repeats a part of the text.
    """
    environment = os.environ if environment is None else environment
    servers: dict[str, DicomwebServer] = {}
    for name, url in _pairs(text.strip()):
        if name in servers:
            raise _refused("every name once", "one twice", _EXAMPLE)
        servers[name] = _with_credentials(name, url, environment, middle=f"_{_upper(name)}")
    return servers


def find_server(text: str, environment: Mapping[str, str] | None = None) -> DicomwebServer:
    """Find the archive that a person at a command line means.

    Args:
        text: a name from ``SEGMAMBA_DICOMWEB_SERVERS``, or an address; the credentials of an
            address are in ``SEGMAMBA_DICOMWEB_USER``, ``…_PASSWORD`` and ``…_TOKEN``.
        environment: the process's own when not given.

    Raises:
        OptionError: it is neither.
    """
    environment = os.environ if environment is None else environment
    if "://" in text:
        return _with_credentials(UNNAMED, text, environment, middle="")
    return choose_server(
        parse_servers(environment.get(f"{VARIABLE}_SERVERS", ""), environment), text
    )


def choose_server(servers: Mapping[str, DicomwebServer], name: str) -> DicomwebServer:
    """Give the configured archive of a name that somebody sent.

    Raises:
        OptionError: there is none of that name.
    """
    if name not in servers:
        raise OptionError(
            "server",
            expected=f"one of {', '.join(servers)}" if servers else "a configured archive",
            got="another name" if servers else "a name, and none is configured",
            way_out=f"The operator lists archives in {VARIABLE}_SERVERS.",
        )
    return servers[name]


def check_uid(argument: str, uid: str) -> str:
    """Give a UID back that can be one (PS3.5, 9.1): numbers with dots between, at most 64 long.

    Leading zeros, which the standard forbids and old archives have, are taken.

    Raises:
        OptionError: it cannot; names the argument and does not repeat the value.
    """
    if not _UID.fullmatch(uid):
        raise OptionError(
            argument,
            expected="a DICOM UID: numbers with dots between them, at most 64 characters",
            got="something else",
            way_out="Copy it from the viewer or the archive, e.g. 1.2.840.113619.2.5.1762583153.",
        )
    return uid


def _pairs(text: str) -> list[tuple[str, str]]:
    if text.startswith("{"):
        return _pairs_of_json(text)
    pairs = [part.partition("=") for part in re.split(r"[,\s]+", text) if part]
    if any(not equals for _, equals, _ in pairs):
        raise _refused("name=url for each archive", "a part without =", _EXAMPLE)
    return [(name, url) for name, _, url in pairs]


def _pairs_of_json(text: str) -> list[tuple[str, str]]:
    try:
        pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    except ValueError:
        raise _refused("a JSON object", "a text that is none", _EXAMPLE) from None
    if any(not isinstance(url, str) for _, url in pairs):
        raise _refused("an address for each name", "something else", _EXAMPLE)
    return pairs


def _with_credentials(
    name: str, url: str, environment: Mapping[str, str], *, middle: str
) -> DicomwebServer:
    return DicomwebServer(
        name=name,
        url=url,
        user=environment.get(f"{VARIABLE}{middle}_USER"),
        password=environment.get(f"{VARIABLE}{middle}_PASSWORD"),
        token=environment.get(f"{VARIABLE}{middle}_TOKEN"),
    )


def _variable(name: str, kind: str) -> str:
    return "_".join([VARIABLE, *([] if name == UNNAMED else [_upper(name)]), kind])


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise _refused("an http or https address", "a text that is none", _EXAMPLE) from None
    if parts.username is not None or parts.password is not None:
        raise _refused(
            "an address without credentials",
            "one with a user in it",
            f"Put them into {VARIABLE}_<NAME>_USER and {VARIABLE}_<NAME>_PASSWORD.",
        )
    whole = parts.scheme in ("http", "https") and _HOST.fullmatch(host) and port != 0
    if not whole or parts.query or parts.fragment or re.search(r"[\s\x00-\x1f]", url):
        raise _refused("an http or https address without query", "another one", _EXAMPLE)


def _refused(expected: str, got: str, way_out: str) -> OptionError:
    return OptionError(ARGUMENT, expected=expected, got=got, way_out=way_out)
