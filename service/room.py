"""Room on the disk, promised to uploads on their way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from anyio import to_thread

from service.errors import StorageFullError


class Room:
    """What one API process has promised of its disk; all on the thread of its event loop.

    What has arrived of an upload counts twice, on the disk and as promised: room is refused rather
    too early than too late.

    Args:
        free: bytes that are free on the disk now.
        spared: bytes that no upload may take.
    """

    def __init__(self, free: Callable[[], int], spared: int) -> None:
        self._free, self._spared = free, spared
        self._promised = 0

    @asynccontextmanager
    async def held(self, size: int) -> AsyncIterator[None]:
        """Promise bytes to an upload until the end of the block.

        Raises:
            StorageFullError: there are not so many, beside what others have been promised.
        """
        self._promised += size
        try:
            if await to_thread.run_sync(self._free) - self._promised < self._spared:
                raise StorageFullError
            yield
        finally:
            self._promised -= size
