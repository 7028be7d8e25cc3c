"""Browsers are told to run, frame and share nothing; other sites only where they are listed."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import Response

from service.auth.headers import add_security_headers
from tests.service.auth.applications import bare_application, served

EXPECTED = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
}
VIEWER = "https://viewer.example"


def application() -> FastAPI:
    app = bare_application()

    @app.get("/plain")
    async def plain() -> str:
        return "x"

    @app.get("/own")
    async def own() -> Response:
        return Response(headers={"Content-Security-Policy": "default-src 'self'"})

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError

    return app


@pytest.fixture(scope="module")
def plain() -> Iterator[httpx.Client]:
    app = application()
    add_security_headers(app, tls_in_front=False, origins=())
    with served(app) as client:
        yield client


@pytest.fixture(scope="module")
def shared() -> Iterator[httpx.Client]:
    app = application()
    add_security_headers(app, tls_in_front=True, origins=(VIEWER,))
    with served(app) as client:
        yield client


@pytest.mark.parametrize(("path", "status"), [("/plain", 200), ("/none", 404), ("/broken", 500)])
def test_every_answer_has_the_headers_once(plain: httpx.Client, path: str, status: int) -> None:
    answer = plain.get(path)
    assert answer.status_code == status
    assert {name: answer.headers.get_list(name) for name in EXPECTED} == {
        name: [value] for name, value in EXPECTED.items()
    }
    assert "camera=()" in answer.headers["permissions-policy"]


def test_a_route_may_set_its_own_policy(plain: httpx.Client) -> None:
    assert plain.get("/own").headers.get_list("content-security-policy") == ["default-src 'self'"]


def test_tls_is_asked_for_only_where_it_is(plain: httpx.Client, shared: httpx.Client) -> None:
    assert "strict-transport-security" not in plain.get("/plain").headers
    assert shared.get("/plain").headers["strict-transport-security"] == "max-age=31536000"


def preflight(client: httpx.Client, origin: str) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    return client.options("/plain", headers=headers)


def test_without_origins_no_cors_header_is_sent(plain: httpx.Client) -> None:
    for answer in (plain.get("/plain", headers={"Origin": VIEWER}), preflight(plain, VIEWER)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_listed_origin_may_call_without_cookies(shared: httpx.Client) -> None:
    for answer in (shared.get("/none", headers={"Origin": VIEWER}), preflight(shared, VIEWER)):
        assert answer.headers["access-control-allow-origin"] == VIEWER
        assert "access-control-allow-credentials" not in answer.headers
    assert (
        "authorization" in preflight(shared, VIEWER).headers["access-control-allow-headers"].lower()
    )


def test_another_origin_may_not(shared: httpx.Client) -> None:
    other = "https://viewer.example.evil.example"
    for answer in (shared.get("/plain", headers={"Origin": other}), preflight(shared, other)):
        assert "access-control-allow-origin" not in answer.headers
