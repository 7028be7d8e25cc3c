"""The public keys of an issuer: fetched when the first token comes, kept, and fetched anew."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import jwt

from service.auth.settings import is_safe_url
from service.errors import AuthUnavailableError

logger = logging.getLogger("service.auth")

LIFESPAN_SECONDS: Final = 300.0
"""Keys that the issuer has withdrawn are no longer believed after this time."""
RETRY_SECONDS: Final = 10.0
"""The issuer is asked at most so often, whatever tokens anybody sends."""
TIMEOUT_SECONDS: Final = 5.0
DISCOVERY: Final = "/.well-known/openid-configuration"


class SigningKeys:
    """The keys of one issuer; safe to share between threads. A known key is found without a lock.

    Args:
        issuer: its URL, as tokens have it.
        url: where its keys are; the discovery document tells when None.
        timeout_seconds: patience with the issuer.
        retry_seconds: shortest time between two attempts.
    """

    def __init__(
        self,
        issuer: str,
        url: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._issuer, self._url = issuer, url
        self._timeout, self._retry = timeout_seconds, retry_seconds
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._good_until = self._ask_again = float("-inf")
        self._failed = False
        self._lock = threading.Lock()

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key with an id; None where the issuer has none, or had none a moment ago.

        Raises:
            AuthUnavailableError: the issuer does not answer.
        """
        key = self._known(key_id)
        if key is not None:
            return key
        with self._lock:
            key = self._known(key_id)  # another thread may have asked meanwhile
            if key is None and time.monotonic() >= self._ask_again:
                self._ask()
                key = self._known(key_id)
        if key is None and self._failed:
            raise AuthUnavailableError
        return key

    def _known(self, key_id: str) -> jwt.PyJWK | None:
        return self._keys.get(key_id) if time.monotonic() < self._good_until else None

    def _ask(self) -> None:
        try:
            keys = self._client(self._url or self._discover()).get_signing_keys()
        except (jwt.PyJWTError, ValueError, OSError) as error:  # unreachable, or no key set
            self._failed = True
            logger.warning("the issuer's keys: none", extra={"exception": type(error).__name__})
        else:
            self._failed = False
            self._keys = {key.key_id: key for key in keys if key.key_id}
            self._good_until = time.monotonic() + LIFESPAN_SECONDS
        self._ask_again = time.monotonic() + self._retry

    def _discover(self) -> str:
        # the client fetches any JSON object, and follows no redirection
        document: Any = self._client(self._issuer.rstrip("/") + DISCOVERY).fetch_data()
        url = document.get("jwks_uri")
        if document.get("issuer") != self._issuer or not isinstance(url, str):
            raise ValueError("the discovery document is of another issuer")
        if not is_safe_url(url):
            raise ValueError("the keys are not to be had over https")
        return url

    def _client(self, url: str) -> jwt.PyJWKClient:
        return jwt.PyJWKClient(url, cache_jwk_set=False, timeout=self._timeout)
