"""The settings of access come from the environment and are checked."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from service.auth.principal import Limits
from service.auth.settings import AuthSettings


def test_without_a_word_the_defaults_hold() -> None:
    settings = AuthSettings()
    assert (settings.auth, settings.allow_unauthenticated) == ("auto", False)
    assert (settings.audit_log, settings.audit_addresses) == (None, False)
    assert settings.origins == ()
    assert settings.oidc_limits == Limits()


def test_the_environment_says_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMAMBA_AUTH", "keys+oidc")
    monkeypatch.setenv("SEGMAMBA_CORS_ORIGINS", "https://a.example  http://localhost:8080")
    monkeypatch.setenv("SEGMAMBA_OIDC_OPEN_JOBS", "3")
    settings = AuthSettings()
    assert settings.auth == "keys+oidc"
    assert settings.origins == ("https://a.example", "http://localhost:8080")
    assert settings.oidc_limits == Limits(open_jobs=3)


def test_settings_do_not_change_once_made() -> None:
    with pytest.raises(ValidationError):
        AuthSettings().auth = "off"  # type: ignore[misc]


@pytest.mark.parametrize(
    "url", ["https://login.example/realm", "http://127.0.0.1:9000", "http://[::1]:1/x"]
)
def test_an_issuer_is_read_over_https_or_on_this_machine(url: str) -> None:
    assert AuthSettings(oidc_issuer=url, oidc_jwks_url=url).oidc_issuer == url


@pytest.mark.parametrize(
    "url", ["http://login.example", "ftp://127.0.0.1/", "file:///keys", "login", "https://[", ""]
)
@pytest.mark.parametrize("name", ["oidc_issuer", "oidc_jwks_url"])
def test_an_issuer_that_anybody_could_play_is_refused(name: str, url: str) -> None:
    with pytest.raises(ValidationError, match="https"):
        AuthSettings(**{name: url})


@pytest.mark.parametrize(
    "origins", ["*", "https://*.example", "https://a.example/", "a.example", "null", "https://a:x"]
)
def test_an_origin_is_scheme_and_host_and_never_a_pattern(origins: str) -> None:
    with pytest.raises(ValidationError, match="origins"):
        AuthSettings(cors_origins=origins)


@pytest.mark.parametrize(
    ("name", "value"), [("auth", "none"), ("oidc_rate_per_minute", 0), ("oidc_scope_claim", "")]
)
def test_a_value_outside_its_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        AuthSettings(**{name: value})


@pytest.mark.parametrize("hosts", ["*", "https://a.example", "a.example:80", "a/b", "a b:1", "é"])
def test_a_host_is_a_name_without_a_port(hosts: str) -> None:
    with pytest.raises(ValidationError, match="names"):
        AuthSettings(allowed_hosts=hosts)


def test_hosts_are_compared_in_small_letters() -> None:
    settings = AuthSettings(allowed_hosts=" Segmamba.Example  [2001:DB8::1] ")
    assert settings.hosts == ("segmamba.example", "[2001:db8::1]")
