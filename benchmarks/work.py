"""How much arithmetic and memory traffic a piece of work needs, counted and not guessed.

A multiply-add is two operations. Of a network the convolutions, transposed convolutions and matrix
products are counted (PyTorch's own counter, on tensors without data); norms, activations and the
scans are not, so the share of the peak that a network reaches is understated a little.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.authors_way import as_authors
from benchmarks.networks import configured

SCAN_OPERATIONS: Final = 8
"""Per element (d·n·l): Δ·A, exp counted as one, decay·h, Δu·B, their sum, ·C, sum, one to spare
for softplus, skip and gate, which are per (d·l) and N times fewer."""


@dataclass(frozen=True)
class Work:
    """The work of one forward pass: 10⁹ operations, and the elements d·n·l of all its scans."""

    gflop: float
    scan_elements: int


@lru_cache(maxsize=32)
def network_work(name: str, sides: tuple[int, int, int], batch: int = 1) -> Work:
    """Count a network of `benchmarks.networks` on a window."""
    elements = 0

    def count(u: Tensor, delta: Tensor, A: Tensor, *_: Tensor) -> Tensor:
        nonlocal elements
        elements += u.numel() * A.shape[1]
        return u * delta

    with torch.device("meta"), torch.no_grad():
        network = configured(name)
        theirs = as_authors(network, count)
        counter = FlopCounterMode(display=False)
        with counter:
            theirs(torch.empty(batch, network.in_channels, *sides))
    return Work(counter.get_total_flops() / 1e9, elements)


def scan_gflop(channels: int, length: int, states: int) -> float:
    """Operations of one scan; see `SCAN_OPERATIONS`."""
    return SCAN_OPERATIONS * channels * length * states / 1e9


def scan_gbyte(channels: int, length: int, states: int) -> float:
    """Least traffic of one float32 scan: u, Δ, z and the output, B and C, each moved once."""
    return 4 * length * (4 * channels + 2 * states) / 1e9
