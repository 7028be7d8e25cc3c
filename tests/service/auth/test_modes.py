"""An address that others reach is never open by accident, and never shut for everybody."""

from __future__ import annotations

import pytest

from model_core.errors import OptionError
from service.auth.modes import Asked, is_loopback, settle_auth

LOCAL = ("127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "LOCALHOST")
REACHED = (
    "0.0.0.0", "::", "", "192.168.1.5", "128.0.0.1", "::2", "::ffff:127.0.0.1", "host.example",
    "localhost.example", "127.0.0.1.example",
)  # fmt: skip


@pytest.mark.parametrize("host", LOCAL)
def test_a_loopback_address_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", REACHED)
def test_any_other_address_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("has_keys", [False, True])
@pytest.mark.parametrize("host", LOCAL)
def test_auto_is_off_on_loopback(host: str, has_keys: bool) -> None:
    assert settle_auth("auto", host, has_keys=has_keys) == "off"


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("host", REACHED)
def test_auto_is_keys_elsewhere_whatever_is_allowed(host: str, allowed: bool) -> None:
    assert settle_auth("auto", host, has_keys=True, allow_unauthenticated=allowed) == "keys"


@pytest.mark.parametrize("asked", ["off", "keys", "oidc", "keys+oidc"])
def test_what_is_asked_for_holds_on_loopback(asked: Asked) -> None:
    assert settle_auth(asked, "127.0.0.1", has_keys=True) == asked


@pytest.mark.parametrize("asked", ["keys", "oidc", "keys+oidc"])
def test_what_is_asked_for_holds_elsewhere(asked: Asked) -> None:
    assert settle_auth(asked, "0.0.0.0", has_keys=True) == asked


@pytest.mark.parametrize("host", REACHED)
def test_off_elsewhere_has_to_be_said_twice(host: str) -> None:
    with pytest.raises(OptionError, match="SEGMAMBA_ALLOW_UNAUTHENTICATED"):
        settle_auth("off", host, has_keys=True)
    assert settle_auth("off", host, has_keys=True, allow_unauthenticated=True) == "off"


@pytest.mark.parametrize(
    ("asked", "host"), [("keys", "127.0.0.1"), ("keys", "0.0.0.0"), ("auto", "0.0.0.0")]
)
def test_keys_without_a_key_say_how_to_make_one(asked: Asked, host: str) -> None:
    with pytest.raises(OptionError, match="segmamba keys add"):
        settle_auth(asked, host, has_keys=False)


@pytest.mark.parametrize("asked", ["oidc", "keys+oidc"])
def test_with_an_issuer_no_key_is_needed(asked: Asked) -> None:
    assert settle_auth(asked, "0.0.0.0", has_keys=False) == asked
