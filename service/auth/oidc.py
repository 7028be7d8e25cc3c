"""Access tokens of an OpenID Connect issuer (signed JWT), checked here without asking it each time.

What is believed of a token is decided beforehand (RFC 8725): three algorithms with public keys, one
issuer, one audience, and the key that the issuer lists under the token's key id. What the token
says about its own checking is held against that and never followed.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any, Final

import jwt

from service.auth.jwks import SigningKeys
from service.auth.principal import Limits, Principal, Scope, known_scopes
from service.errors import UnauthenticatedError

logger = logging.getLogger("service.auth")

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
"""Never HS*: there a public key would be the secret. Never none."""
REQUIRED: Final = ("exp", "iat", "aud", "iss", "sub")
LEEWAY_SECONDS: Final = 30
"""How far the issuer's clock may be from ours."""
_OWNER_DIGITS: Final = 48


class OidcVerifier:
    """Turns a token into a principal; it may wait for the issuer, so call it on a thread.

    Args:
        issuer: who must have signed.
        audience: whom the token must be for: this service.
        keys: the issuer's keys.
        scope_claim: which claim lists the scopes.
        limits: of each person.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        keys: SigningKeys,
        scope_claim: str = "scope",
        limits: Limits | None = None,
    ) -> None:
        self._issuer, self._audience = issuer, audience
        self._keys = keys
        self._scope_claim = scope_claim
        self._limits = limits or Limits()

    def verify(self, token: str) -> Principal:
        """Whom a token lets in.

        Raises:
            UnauthenticatedError: it is not to be believed; the log has the kind of reason.
            AuthUnavailableError: the issuer's keys cannot be had.
        """
        try:
            claims = self._claims(token)
        except jwt.PyJWTError as error:
            logger.info("token refused", extra={"reason": type(error).__name__})
            raise UnauthenticatedError from None
        return Principal(
            id=owner_of(claims["iss"], claims["sub"]),
            scopes=_scopes(claims.get(self._scope_claim)),
            limits=self._limits,
        )

    def _claims(self, token: str) -> dict[str, Any]:
        key = self._key(jwt.get_unverified_header(token))
        return jwt.decode(
            token,
            key,  # bound to one algorithm: the token's header cannot choose another
            algorithms=list(ALGORITHMS),
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": list(REQUIRED), "enforce_minimum_key_length": True},
        )

    def _key(self, header: dict[str, Any]) -> jwt.PyJWK:
        if header.get("alg") not in ALGORITHMS:  # before anybody is asked for a key
            raise jwt.InvalidAlgorithmError
        key_id = header.get("kid")
        key = self._keys.find(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise jwt.InvalidKeyError
        return key


def owner_of(issuer: str, subject: str) -> str:
    """A stable id of a person at an issuer that does not tell who it is."""
    digest = hashlib.sha256(f"{issuer}\n{subject}".encode()).hexdigest()
    return f"oidc-{digest[:_OWNER_DIGITS]}"


def _scopes(claim: object) -> frozenset[Scope]:
    if isinstance(claim, str):
        return known_scopes(claim.split())
    if isinstance(claim, list):
        return known_scopes(word for word in claim if isinstance(word, str))
    return frozenset()
