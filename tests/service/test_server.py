"""The server drains the service first, and no late connection holds it up."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import uvicorn

from service.server import DrainingServer
from service.state import Service


def make_server(events: list[str]) -> DrainingServer:
    async def lifespan_shutdown() -> None:
        events.append("lifespan")

    service = SimpleNamespace(drain=lambda: events.append("drain"))
    config = uvicorn.Config(cast("Any", None), log_config=None, timeout_graceful_shutdown=60)
    server = DrainingServer(config, cast("Service", service))
    server.servers = []
    server.lifespan = cast("Any", SimpleNamespace(shutdown=lifespan_shutdown))
    return server


class Connection:
    """A connection that notes when it is told to close."""

    def __init__(self, name: str, server: DrainingServer, events: list[str]) -> None:
        self.name, self.server, self.events = name, server, events
        server.server_state.connections.add(cast("Any", self))

    def shutdown(self) -> None:
        self.events.append(self.name)
        self.server.server_state.connections.discard(cast("Any", self))


def test_the_service_is_drained_before_connections_are_closed() -> None:
    events: list[str] = []
    server = make_server(events)
    Connection("idle", server, events)
    asyncio.run(server.shutdown())
    assert events == ["drain", "idle", "lifespan"]


def test_a_connection_accepted_during_the_shutdown_is_closed_too() -> None:
    events: list[str] = []
    server = make_server(events)

    async def scenario() -> None:
        ending = asyncio.create_task(server.shutdown())
        await asyncio.sleep(0.01)  # by now those that were there have been closed
        Connection("late", server, events)
        await asyncio.wait_for(ending, 20)

    asyncio.run(scenario())
    assert events == ["drain", "late", "lifespan"]
