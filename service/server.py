"""The ASGI server, taught to drain: on SIGTERM the service stops taking work before it waits."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import uvicorn

from service.state import Service

_LOOK_SECONDS: Final = 0.2


class DrainingServer(uvicorn.Server):
    """A uvicorn server that tells the service as soon as it begins to shut down."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain the service, then close connections and wait as uvicorn does."""
        self._service.drain()
        latecomers = asyncio.create_task(self._close_latecomers())
        try:
            await super().shutdown(sockets)
        finally:
            latecomers.cancel()

    async def _close_latecomers(self) -> None:
        """Close connections that were accepted while the others were being closed.

        uvicorn looks once; an idle connection that it missed would keep the process for the whole
        grace period.
        """
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for connection in list(self.server_state.connections):
                connection.shutdown()
