"""What pages of other sites could do through somebody's browser where no key stands in their way.

A browser on this machine reaches loopback too. A foreign page may send a form there, though not
read the answer; once its own name leads here (*DNS rebinding*), it may do both. The second shows
in the Host header, the first in Sec-Fetch-Site and Origin, none of which a page can write itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.auth.guard import Guard
from service.auth.modes import is_loopback
from service.errors import ForeignHostError, ForeignOriginError, ServiceError
from service.problems import problem_response

_HOST: Final = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\s:@/?#\[\]]+)(:\d*)?")
_HARMLESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_PAGE: Final = ("same-origin", "none")


class ForeignPagesMiddleware:
    """Refuses requests by a foreign name, and those of foreign pages that change something.

    Args:
        app: what it is around.
        host: the address that the application listens on.
        hosts: names that it has besides those of loopback; without any, every name is taken where
            callers need keys or other machines may call.
        origins: pages that may call from a browser.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, hosts: Sequence[str], origins: Sequence[str]
    ) -> None:
        self.app = app
        self._local = is_loopback(host)
        self._hosts, self._origins = frozenset(hosts), frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any kind; only HTTP requests are looked at."""
        error = self._fault(scope) if scope["type"] == "http" else None
        answer = self.app if error is None else problem_response(error)
        await answer(scope, receive, send)

    def _fault(self, scope: Scope) -> ServiceError | None:
        guard: Guard = scope["app"].state.guard
        headers, is_open = Headers(scope=scope), guard.mode == "off"
        named = bool(self._hosts) or (is_open and self._local)
        if named and not self._is_ours(headers.get("host", "")):
            return ForeignHostError()
        if is_open and scope["method"] not in _HARMLESS and self._is_foreign_page(headers):
            return ForeignOriginError()
        return None

    def _is_ours(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        name = found["name"].lower() if found else ""
        return is_loopback(name) or name in self._hosts

    def _is_foreign_page(self, headers: Headers) -> bool:
        """Whether a page sent it that is not listed; programs send neither header."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in self._origins:
            return False
        if site is not None:
            return site not in _OWN_PAGE
        return origin is not None and urlsplit(origin).netloc != headers.get("host")
