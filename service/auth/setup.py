"""From the settings to the guard of an application."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from model_core.errors import OptionError
from service.auth.audit import AuditLog
from service.auth.guard import Guard
from service.auth.keys import KeyStore
from service.auth.modes import settle_auth
from service.auth.settings import AuthSettings

if TYPE_CHECKING:
    from service.auth.oidc import OidcVerifier


def make_guard(settings: AuthSettings, *, host: str, engine: sa.Engine) -> Guard:
    """The guard that the settings describe; close it when the application ends.

    Args:
        settings: who may call.
        host: the address that the application is served on.
        engine: the database of the jobs; the table of keys is made in it.

    Raises:
        OptionError: the settings would let everybody or nobody in, or lack something.
    """
    keys = KeyStore(engine)
    keys.create_table()
    mode = settle_auth(
        settings.auth,
        host,
        has_keys=keys.any_active(),
        allow_unauthenticated=settings.allow_unauthenticated,
    )
    return Guard(
        mode,
        keys=keys,
        oidc=_verifier(settings) if "oidc" in mode else None,
        audit=AuditLog(settings.audit_log, addresses=settings.audit_addresses),
    )


def _verifier(settings: AuthSettings) -> OidcVerifier:
    try:
        from service.auth.jwks import SigningKeys
        from service.auth.oidc import OidcVerifier
    except ModuleNotFoundError as error:
        if error.name != "jwt":
            raise
        raise OptionError(
            "SEGMAMBA_AUTH",
            expected="a mode whose libraries are installed",
            got="oidc without PyJWT",
            way_out="Install segmamba-service[oidc].",
        ) from None
    issuer = _said("OIDC_ISSUER", settings.oidc_issuer)
    return OidcVerifier(
        issuer,
        _said("OIDC_AUDIENCE", settings.oidc_audience),
        keys=SigningKeys(issuer, settings.oidc_jwks_url),
        scope_claim=settings.oidc_scope_claim,
        limits=settings.oidc_limits,
    )


def _said(name: str, value: str | None) -> str:
    if value:
        return value
    raise OptionError(
        f"SEGMAMBA_{name}",
        expected="a value, since SEGMAMBA_AUTH has oidc",
        got="none",
        way_out="Take it from the issuer's registration of this service.",
    )
