"""What a caller has to show: settled once at the start, so that no door stands open by accident."""

from __future__ import annotations

import ipaddress
from typing import Final, Literal

from model_core.errors import OptionError

Mode = Literal["off", "keys", "oidc", "keys+oidc"]
Asked = Literal["auto", "off", "keys", "oidc", "keys+oidc"]

_LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


def settle_auth(
    settings_auth: Asked, host: str, *, has_keys: bool, allow_unauthenticated: bool = False
) -> Mode:
    """The mode that holds.

    With ``keys+oidc`` no key is needed: somebody can come in, and keys may be added any time.

    Args:
        settings_auth: what the operator asked for.
        host: the address that the service listens on.
        has_keys: whether there is a key that is good now.
        allow_unauthenticated: the operator says that an open door is meant.

    Raises:
        OptionError: anybody on the network could come in, or nobody could.
    """
    local = is_loopback(host)
    mode: Mode = ("off" if local else "keys") if settings_auth == "auto" else settings_auth
    if mode == "off" and not local and not allow_unauthenticated:
        raise OptionError(
            "SEGMAMBA_AUTH",
            expected="keys or oidc on an address that other machines reach",
            got=f"off on {host}",
            way_out="Make a key (segmamba keys add), listen on 127.0.0.1, or set "
            "SEGMAMBA_ALLOW_UNAUTHENTICATED=true where a proxy in front asks who calls.",
        )
    if mode == "keys" and not has_keys:
        raise OptionError(
            "SEGMAMBA_AUTH",
            expected="at least one API key that is good now",
            got="none, so that nobody could call",
            way_out="Make one with segmamba keys add LABEL, or listen on 127.0.0.1.",
        )
    return mode


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address: 127.0.0.0/8, ::1, localhost."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return any(address in network for network in _LOOPBACK)
