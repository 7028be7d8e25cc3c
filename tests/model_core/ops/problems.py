"""Small random selective scans, built in code."""

from __future__ import annotations

from typing import Any

import torch


def scan_problem(
    length: int,
    *,
    batch: int = 2,
    channels: int = 5,
    states: int = 16,
    groups: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Every argument of `selective_scan`, in the ranges of a trained network."""
    draw = torch.Generator().manual_seed(length * 1000 + channels * 10 + states)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    projection = (batch, states, length) if groups is None else (batch, groups, states, length)
    problem: dict[str, Any] = {
        "u": normal(batch, channels, length),
        "delta": normal(batch, channels, length) - 2,
        "A": -torch.exp(normal(channels, states)),
        "B": normal(*projection),
        "C": normal(*projection),
        "D": normal(channels),
        "z": normal(batch, channels, length),
        "delta_bias": normal(channels) * 0.1,
    }
    kept_wide = ("A", "D", "delta_bias")  # parameters stay float32 under reduced precision
    problem = {
        name: value if name in kept_wide and dtype.itemsize < 4 else value.to(dtype)
        for name, value in problem.items()
    }
    return problem | {"delta_softplus": True}


def relative(got: torch.Tensor, true: torch.Tensor) -> float:
    """L2 of the difference over L2 of the truth; the difference itself where the truth is zero."""
    got, true = got.detach().double(), true.detach().double()
    return float((got - true).norm() / (true.norm() or 1))
