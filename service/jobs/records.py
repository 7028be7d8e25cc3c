"""What a job is: the values that cross the border between callers, the table and the workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATES: Final[tuple[State, ...]] = get_args(State)
OPEN_STATES: Final[tuple[State, ...]] = ("queued", "running")
"""States that will change by themselves."""

Priority = Literal["high", "normal", "low"]
PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)
"""The first is served first; within one, first come first served."""

RetryCause = Literal["worker-lost", "hang", "handed-back"]
NO_PROGRESS: Final = "no progress"
HANDED_BACK: Final = "handed back"
"""How the end of an attempt is written down; any other words are those of a worker's death."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What a caller asks for.

    Args:
        owner: who may see it; a key's id, never a person's name.
        spec: what a worker needs to do it, plain JSON.
        priority: see `PRIORITIES`.
        batch: a token that several jobs share.
        cache_key: of everything the result depends on; None where an old result is not wanted.
        idempotency_key: a caller's own key: the same key again is the same job again.
        fingerprint: of the request, so that one key with two requests is noticed.
        input_bytes: what the inputs take in storage.
    """

    owner: str
    spec: Mapping[str, Any]
    priority: Priority = "normal"
    batch: str | None = None
    cache_key: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    input_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as it stands; times in milliseconds since 1970 by the database's clock."""

    id: str
    number: int
    """Jobs are numbered as they come."""
    owner: str
    state: State
    priority: Priority
    batch: str | None
    spec: Mapping[str, Any]
    cached: bool
    """Answered from an earlier job's result."""
    source: str | None
    """The job whose result that is."""
    attempts: int
    """How often a worker has begun."""
    handed_back: int
    """How many of them were given back in good order."""
    stage: str | None
    done: int
    total: int
    """Windows of the network, done and in all; 0 of 0 before that is known."""
    revision: int
    """Grows with every change."""
    error: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    created: int
    started: int | None
    ended: int | None
    cache_key: str | None = field(default=None, repr=False)
    fingerprint: str | None = field(default=None, repr=False)

    @property
    def open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in OPEN_STATES


def retry_cause(crash: str | None) -> RetryCause:
    """Why a job is begun again, from what was written down of its last attempt's end."""
    if crash == HANDED_BACK:
        return "handed-back"
    return "hang" if (crash or "").startswith(NO_PROGRESS) else "worker-lost"


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker process as it last said it was."""

    id: str
    device: str
    state: Literal["starting", "ready", "draining"]
    facts: Mapping[str, Any]
    """Models in memory, memory used and the like: for metrics and people."""
    job: str | None
    seen: int


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to run one attempt of a job; a later attempt takes it away."""

    job: Job
    attempt: int
    worker: str
