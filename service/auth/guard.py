"""The door of every route: who calls, whether it may, and how often.

::

    @router.get("/jobs/{job_id}")
    async def job(caller: Annotated[Principal, Depends(require("read"))]) -> …
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

from anyio import CapacityLimiter, to_thread
from fastapi import Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from service.auth.audit import AuditLog
from service.auth.keys import PREFIX, KeyStore
from service.auth.modes import Mode
from service.auth.principal import ANONYMOUS, Principal, Scope
from service.auth.rates import RateCounter
from service.errors import (
    AuthUnavailableError,
    ForbiddenError,
    TooManyRequestsError,
    UnauthenticatedError,
)
from service.jobs.database import UNREACHABLE
from service.problems import problem_kind

if TYPE_CHECKING:
    from service.auth.oidc import OidcVerifier

REMEMBER_SECONDS: Final = 5.0
"""A revoked key may still be good for so long; a client that polls costs one query in that time."""
LONGEST_TOKEN: Final = 16_384
_REMEMBERED: Final = 4096
_THREADS: Final = 8

_bearer = HTTPBearer(
    auto_error=False, scheme_name="bearer", description="An API key, or a token of the issuer."
)
_api_key = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="api-key")

Gate = Callable[..., Awaitable[Principal]]


class Guard:
    """Checks credentials for one application.

    Args:
        mode: what counts as a credential.
        keys: the API keys, where the mode has them.
        oidc: the issuer's tokens, likewise.
        audit: where refusals are written, and where routes write the rest.
        remember_seconds: how long an answer about a credential is used again.
    """

    def __init__(
        self,
        mode: Mode,
        *,
        keys: KeyStore | None = None,
        oidc: OidcVerifier | None = None,
        audit: AuditLog | None = None,
        remember_seconds: float = REMEMBER_SECONDS,
    ) -> None:
        wanted = mode.split("+")
        assert "keys" not in wanted or keys is not None
        assert "oidc" not in wanted or oidc is not None
        self.mode: Final = mode
        self.audit = audit or AuditLog()
        self._keys = keys if "keys" in wanted else None
        self._oidc = oidc if "oidc" in wanted else None
        self._memory = _Memory(remember_seconds)
        self._rates = RateCounter()
        # threads of their own, so that a slow issuer keeps neither keys nor other work waiting
        self._key_threads, self._oidc_threads = CapacityLimiter(_THREADS), CapacityLimiter(_THREADS)

    async def admit(self, request: Request, scope: Scope, token: str | None) -> Principal:
        """Let a request in.

        Raises:
            UnauthenticatedError: no credential, or none that is good.
            ForbiddenError: the scope is missing.
            TooManyRequestsError: the caller's rate is used up.
            AuthUnavailableError: it cannot be told now.
        """
        principal: Principal | None = None
        try:
            principal = await self.identify(token)
            self._rates.count(principal)
            if not principal.may(scope):
                raise ForbiddenError(scope)
        except (UnauthenticatedError, ForbiddenError, TooManyRequestsError) as error:
            cause = problem_kind(error).cause
            self.audit.note("refused", principal, outcome=cause, address=address_of(request))
            raise
        return principal

    async def identify(self, token: str | None) -> Principal:
        """Whose credential it is.

        Raises:
            UnauthenticatedError: nobody's.
            AuthUnavailableError: it cannot be told now.
        """
        if self.mode == "off":
            return ANONYMOUS
        if not token or len(token) > LONGEST_TOKEN:
            raise UnauthenticatedError
        digest = hashlib.sha256(token.encode()).digest()
        known = self._memory.recall(digest)
        principal = await self._look_up(token) if known is None else known.principal
        if known is None:
            self._memory.keep(digest, principal)
        if principal is None:
            raise UnauthenticatedError
        return principal

    def close(self) -> None:
        """Close what was opened for it."""
        self.audit.close()

    async def _look_up(self, token: str) -> Principal | None:
        if token.startswith(PREFIX):
            return None if self._keys is None else await self._key_holder(self._keys, token)
        if self._oidc is None:
            return None
        return await to_thread.run_sync(self._oidc.verify, token, limiter=self._oidc_threads)

    async def _key_holder(self, keys: KeyStore, token: str) -> Principal | None:
        try:
            key = await to_thread.run_sync(keys.find, token, limiter=self._key_threads)
        except UNREACHABLE:
            raise AuthUnavailableError from None
        return None if key is None else key.principal


@cache
def require(scope: Scope) -> Gate:
    """A dependency that lets in who has the scope, and tells the route who it is."""

    async def gate(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
        api_key: Annotated[str | None, Security(_api_key)],
    ) -> Principal:
        # the header of ours first: a proxy may use the other one for itself
        token = api_key or (bearer.credentials if bearer else None)
        return await guard_of(request).admit(request, scope, token)

    return gate


def guard_of(request: Request) -> Guard:
    """The guard of the application behind a request."""
    guard = request.app.state.guard
    assert isinstance(guard, Guard)
    return guard


def address_of(request: Request) -> str | None:
    """Where a request came from, as far as the server knows."""
    return request.client.host if request.client else None


class _Entry(NamedTuple):
    until: float
    principal: Principal | None


class _Memory:
    """What was found out about credentials a moment ago; holds digests and no credential."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: dict[bytes, _Entry] = {}

    def recall(self, digest: bytes) -> _Entry | None:
        entry = self._entries.get(digest)
        return entry if entry is not None and time.monotonic() < entry.until else None

    def keep(self, digest: bytes, principal: Principal | None) -> None:
        self._entries.pop(digest, None)  # a dictionary is in the order of insertion
        while len(self._entries) >= _REMEMBERED:
            del self._entries[next(iter(self._entries))]
        self._entries[digest] = _Entry(time.monotonic() + self._seconds, principal)
