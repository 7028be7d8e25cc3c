"""What a run is given besides its config: the machine's part and the cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.data.cases import CachedCase


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run uses the machine; nothing here decides the weights.

    On several devices a step still sees the config's ``batch`` × ``accumulate`` patches: they are
    dealt out (`training.loop.share`), so one number of devices gives the weights of another up to
    rounding.
    """

    device: str = "cpu"
    """``cpu``, ``cuda``, ``cuda:1`` …"""
    devices: int = 1
    """Devices of this host that work together, one process each. Under ``torchrun`` its own
    ``--nproc-per-node`` counts instead."""
    nodes: int = 1
    """Hosts; each is started with ``NODE_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT`` set, or all
    by ``torchrun``."""
    workers: int = 1
    """Processes that prepare patches ahead, per device; 0 prepares them in the loop."""
    record_steps: int = 10
    """One line in ``metrics.jsonl`` every so many steps."""


@dataclass(frozen=True, kw_only=True)
class Cases:
    """What trains and what judges."""

    training: tuple[CachedCase, ...]
    validation: tuple[CachedCase, ...] = ()
