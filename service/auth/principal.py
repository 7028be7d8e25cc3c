"""Who calls: an id that owns jobs, what it may do, and how much of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

Scope = Literal["segment", "read", "metrics", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
"""segment: submit, read and cancel own jobs · read: look at own jobs · metrics: GET /metrics ·
admin: everything, with everybody's jobs."""

_INCLUDED: Final[Mapping[Scope, frozenset[Scope]]] = {
    "segment": frozenset({"segment", "read"}),
    "read": frozenset({"read"}),
    "metrics": frozenset({"metrics"}),
    "admin": frozenset(SCOPES),
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one caller may have; None: no limit."""

    rate_per_minute: int | None = None
    """Requests of any kind."""
    open_jobs: int | None = None
    """Jobs that wait or run."""
    storage_mb: int | None = None
    """MiB of inputs and results that are kept."""


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A caller whose credential has been checked.

    Args:
        id: owner of the jobs that it submits; never a person's name.
        scopes: what it was granted.
        limits: how much it may have.
    """

    id: str
    scopes: frozenset[Scope]
    limits: Limits = Limits()

    def may(self, scope: Scope) -> bool:
        """Whether a granted scope is, or includes, this one."""
        return any(scope in _INCLUDED[held] for held in self.scopes)

    @property
    def visible_owner(self) -> str | None:
        """Whose jobs it sees, as the job engine asks for it: its own; None: everybody's."""
        return None if self.may("admin") else self.id


ANONYMOUS: Final = Principal(id="anonymous", scopes=frozenset(SCOPES))
"""Everybody, where nobody is asked who they are."""


def known_scopes(words: Iterable[str]) -> frozenset[Scope]:
    """Those of the words that are scopes of ours."""
    asked = set(words)
    return frozenset(scope for scope in SCOPES if scope in asked)
