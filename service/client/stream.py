"""Following one job to its end: by the event stream while that gets through, else by asking.

A stream that is cut is taken up again after the last event that arrived (``Last-Event-ID``), so no
change is missed and none is told twice. Where it is cut again and again without a new event, or
swallowed by something on the way, the job is asked for at intervals instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Final
from urllib.parse import quote

import httpx
from httpx_sse import ServerSentEvent, SSEError, connect_sse

from service.client.errors import WaitTimeoutError
from service.client.job import Job
from service.client.wire import Wire, read

SILENCE_S: Final = 45.0
"""The server sends something every 15 seconds; three misses mean that nothing gets through."""
CUTS_TAKEN: Final = 3
"""So many cuts in a row without an event, and the stream is given up."""


def job_path(job_id: str) -> str:
    """The address of a job."""
    return f"/jobs/{quote(job_id, safe='')}"


def follow(wire: Wire, job_id: str, *, deadline: float = inf) -> Iterator[Job]:
    """Every change of a job that is told, its present state first, until it has ended.

    Args:
        wire: the way to the server.
        job_id: the job.
        deadline: when to give up, by the monotonic clock.

    Raises:
        ServerRefused: the job is unknown, or somebody else's.
        ServerUnreachable: the server was away for longer than patience allows.
        WaitTimeoutError: the deadline came first.
    """
    place = _Place(pause_s=wire.patience.first_pause_s)
    while place.fruitless < CUTS_TAKEN:
        place.fruitless += 1
        try:
            yield from _stream(wire, job_id, place, deadline)
        except (httpx.ReadTimeout, SSEError):
            break
        except httpx.RequestError:
            # a server that was away says nothing about streams
            if place.fruitless and _was_away(wire, job_id, deadline):
                place.fruitless -= 1
        if place.ended:
            return
        _rest(place.pause_s, deadline)
    yield from _poll(wire, job_id, place, deadline)


@dataclass
class _Place:
    """How far the reader has come."""

    pause_s: float
    event_id: str = ""
    job: Job | None = None
    fruitless: int = 0
    """Streams in a row that brought nothing."""

    @property
    def ended(self) -> bool:
        return self.job is not None and not self.job.open

    def take(self, event: ServerSentEvent) -> Job | None:
        """The news in an event, if it holds any."""
        if event.retry is not None:
            self.pause_s = event.retry / 1000
        if event.event != "job" or not event.data or self._known(event.id):
            return None
        self.event_id, self.fruitless = event.id, 0
        self.job = read(Job, event.data)
        return self.job

    def _known(self, event_id: str) -> bool:
        both_count = event_id.isdecimal() and self.event_id.isdecimal()
        return both_count and int(event_id) <= int(self.event_id)


def _stream(wire: Wire, job_id: str, place: _Place, deadline: float) -> Iterator[Job]:
    """The news of one connection; ends where that does, or with the job."""
    headers = {"Last-Event-ID": place.event_id} if place.event_id else {}
    silence = wire.silence(min(SILENCE_S, _left(deadline)))
    path = f"{job_path(job_id)}/events"
    with connect_sse(wire.http, "GET", path, headers=headers, timeout=silence) as source:
        wire.met = True
        if not source.response.is_success:
            source.response.read()
            refused = wire.refusal(source.response)
            if not refused.temporary:
                raise refused
            place.pause_s = max(refused.retry_after or 0.0, place.pause_s)
            return
        source.response.stream = _Until(source.response.stream, deadline)
        for event in source.iter_sse():
            job = place.take(event)
            if job is not None:
                yield job
            if place.ended:
                return


def _was_away(wire: Wire, job_id: str, deadline: float) -> bool:
    """Wait until the server answers; whether it did not at once."""
    asked = 0

    def attempt() -> httpx.Response:
        nonlocal asked
        asked += 1
        return wire.http.get(job_path(job_id))

    wire.repeat(attempt, deadline=deadline)
    return asked > 1


class _Until(httpx.SyncByteStream):
    """A body that is read until a moment; heartbeats alone must not carry a reader past it."""

    def __init__(self, inner: object, deadline: float) -> None:
        assert isinstance(inner, httpx.SyncByteStream)
        self._inner, self._deadline = inner, deadline

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._inner:
            _left(self._deadline)
            yield chunk

    def close(self) -> None:
        """Close the body."""
        self._inner.close()


def _poll(wire: Wire, job_id: str, place: _Place, deadline: float) -> Iterator[Job]:
    while not place.ended:
        _left(deadline)
        job = read(Job, wire.send("GET", job_path(job_id), deadline=deadline).content)
        if job != place.job:
            place.job = job
            yield job
        if not place.ended:
            _rest(wire.patience.poll_s, deadline)


def _rest(seconds: float, deadline: float) -> None:
    time.sleep(min(seconds, _left(deadline)))


def _left(deadline: float) -> float:
    """Seconds until the deadline.

    Raises:
        WaitTimeoutError: it is over.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise WaitTimeoutError(
            "the job had not ended when the time was up. It goes on at the server: wait again with "
            "the same id, or cancel it."
        )
    return left
