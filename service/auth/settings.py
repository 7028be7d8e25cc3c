"""The settings that say who may call; a part of `service.settings.Settings`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.auth.modes import Asked, is_loopback
from service.auth.principal import Limits

_SCHEMES: Final = ("http", "https")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


class AuthSettings(BaseSettings):
    """Frozen and checked like the rest of the settings."""

    model_config = SettingsConfigDict(
        env_prefix="SEGMAMBA_", frozen=True, extra="ignore", protected_namespaces=()
    )

    auth: Asked = Field(
        default="auto",
        description="Who may call: off (anybody), keys, oidc, keys+oidc; auto: off on a loopback "
        "address, keys on any other.",
    )
    allow_unauthenticated: bool = Field(
        default=False,
        description="Let auth=off hold on an address that other machines reach; for a service "
        "behind a proxy that asks who calls.",
    )
    oidc_issuer: str | None = Field(
        default=None,
        description="Issuer of the tokens, exactly as their iss claim has it; an https URL.",
    )
    oidc_audience: str | None = Field(
        default=None, description="This service's name in the aud claim of the tokens."
    )
    oidc_jwks_url: str | None = Field(
        default=None,
        description="Where the issuer's public keys are; its discovery document says so when "
        "unset.",
    )
    oidc_scope_claim: str = Field(
        default="scope",
        min_length=1,
        description="Claim that lists the scopes: a text with blanks between them, or an array.",
    )
    oidc_rate_per_minute: int | None = Field(
        default=None, ge=1, description="Requests a minute of one person; no limit when unset."
    )
    oidc_open_jobs: int | None = Field(
        default=None, ge=1, description="Jobs of one person that wait or run; no limit when unset."
    )
    oidc_storage_mb: int | None = Field(
        default=None, ge=1, description="MiB kept of one person's jobs; no limit when unset."
    )
    audit_log: Path | None = Field(
        default=None,
        description="File that gets one JSON line for each submission, reading, cancellation, "
        "deletion and refusal; the service's log when unset.",
    )
    audit_addresses: bool = Field(
        default=False, description="Write the caller's address into the audit log."
    )
    tls_in_front: bool = Field(
        default=False,
        description="A proxy in front speaks TLS: tell browsers to use nothing else.",
    )
    cors_origins: str | None = Field(
        default=None,
        description="Web pages that may call from a browser: their origins, such as "
        "https://viewer.example.org, with blanks between them; none when unset.",
    )

    allowed_hosts: str | None = Field(
        default=None,
        description="Names that callers may use for this service besides localhost, with blanks "
        "between them; when unset, any, but only localhost on loopback without keys.",
    )

    @field_validator("oidc_issuer", "oidc_jwks_url")
    @classmethod
    def _encrypted(cls, url: str | None) -> str | None:
        """Keys fetched in the clear could be anybody's."""
        if url is not None and not is_safe_url(url):
            raise ValueError("an https URL, or an http URL of a loopback address")
        return url

    @field_validator("cors_origins")
    @classmethod
    def _origins_only(cls, text: str | None) -> str | None:
        if any(not _is_origin(word) for word in (text or "").split()):
            raise ValueError("origins such as https://viewer.example.org, with blanks between them")
        return text

    @field_validator("allowed_hosts")
    @classmethod
    def _names_only(cls, text: str | None) -> str | None:
        if not all(map(_HOST.fullmatch, (text or "").split())):
            raise ValueError("names such as segmamba.example.org, without ports, blanks between")
        return text

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of this service, in small letters."""
        return tuple((self.allowed_hosts or "").lower().split())

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins that may call from a browser."""
        return tuple((self.cors_origins or "").split())

    @property
    def oidc_limits(self) -> Limits:
        """How much each person may have that comes with a token."""
        return Limits(
            rate_per_minute=self.oidc_rate_per_minute,
            open_jobs=self.oidc_open_jobs,
            storage_mb=self.oidc_storage_mb,
        )


def is_safe_url(url: str) -> bool:
    """Whether what is read from there can be trusted: https, or this machine itself."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    )


def _is_origin(word: str) -> bool:
    try:
        parts = urlsplit(word)
        port = f":{parts.port}" if parts.port else ""
        host = parts.hostname or ""
    except ValueError:
        return False
    shown = f"[{host}]" if ":" in host else host
    return (
        parts.scheme in _SCHEMES and "*" not in host and word == f"{parts.scheme}://{shown}{port}"
    )
