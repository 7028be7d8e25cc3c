"""What a browser is told with every answer: run nothing, frame nothing, share nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), usb=()",
}
HSTS: Final = "max-age=31536000"
"""A year; without includeSubDomains, since other hosts are not ours to speak for."""


class SecurityHeadersMiddleware:
    """Adds the headers that an answer does not have yet, so that a route may set its own.

    Args:
        app: what it is around.
        tls_in_front: a proxy speaks TLS, so browsers may be told to use nothing else.
    """

    def __init__(self, app: ASGIApp, *, tls_in_front: bool = False) -> None:
        self.app = app
        self._headers = dict(SECURITY_HEADERS)
        if tls_in_front:
            self._headers["Strict-Transport-Security"] = HSTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any kind; only HTTP answers have headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)


def add_security_headers(app: Starlette, *, tls_in_front: bool, origins: Sequence[str]) -> None:
    """Put the headers around what is there, and CORS, where origins are listed.

    After all other middleware: the answers of what is added later would lack them.

    Without origins no CORS header is ever sent, so a browser keeps other sites' pages out. Cookies
    are never asked for: a page that may call has to bring a key or a token of its own.
    """
    app.add_middleware(SecurityHeadersMiddleware, tls_in_front=tls_in_front)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Idempotency-Key", "X-API-Key", "X-Request-ID"],
            expose_headers=["*"],
        )
