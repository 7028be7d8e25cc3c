"""A small application with one route for each scope, served over a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import httpx
import uvicorn
from fastapi import Depends, FastAPI

from service.auth.guard import Guard, require
from service.auth.principal import Principal
from service.metrics import ServiceMetrics
from service.middleware import ObservingMiddleware
from service.problems import install_error_handlers

ROUTES = {"segment": "/segment", "read": "/jobs", "metrics": "/metrics", "admin": "/admin"}


async def _segment(caller: Annotated[Principal, Depends(require("segment"))]) -> str:
    return caller.id


async def _read(caller: Annotated[Principal, Depends(require("read"))]) -> str:
    return caller.id


async def _metrics(caller: Annotated[Principal, Depends(require("metrics"))]) -> str:
    return caller.id


async def _admin(caller: Annotated[Principal, Depends(require("admin"))]) -> str:
    return caller.id


def bare_application() -> FastAPI:
    """The routes and the error table; no guard yet."""
    app = FastAPI()
    for name, route in zip(ROUTES, (_segment, _read, _metrics, _admin), strict=True):
        app.add_api_route(ROUTES[name], route)
    install_error_handlers(app)
    app.add_middleware(ObservingMiddleware, metrics=ServiceMetrics())
    return app


class Door:
    """One served application whose guard changes from test to test."""

    def __init__(self, app: FastAPI, client: httpx.Client) -> None:
        self._state, self._client = app.state, client

    def guarded(self, guard: Guard) -> httpx.Client:
        """A client of the application with this guard."""
        self._state.guard = guard
        return self._client


@contextmanager
def door() -> Iterator[Door]:
    """Without a guard yet."""
    app = bare_application()
    with served(app) as client:
        yield Door(app, client)


@contextmanager
def served(app: FastAPI) -> Iterator[httpx.Client]:
    """Serve in a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # else the second half of each answer waits for the first one's acknowledgement, 40 ms
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=address, timeout=30) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive(), "the server did not stop"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
