"""What this machine can do at best, measured at the start of every subject.

Rates of matrix products and convolutions count two operations per multiply-add; rates of memory
count every byte read and written once (a triad reads two arrays and writes one).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import torch
from torch.nn import functional as F

from benchmarks.timing import time_once

CONVOLUTIONS: Final = (
    # channels in, channels out, side: wide and narrow, as the networks have them
    (384, 192, 32),
    (192, 96, 48),
    (64, 64, 64),
)
_GEMM_SIDES: Final = (1024, 2048)
_STREAM_BYTES: Final = 256 * 2**20


def measure_peaks(*, threads: int, quick: bool = False) -> dict[str, float]:
    """Best rates: ``gemm_*`` and ``conv3d_*`` in GFLOP/s, ``copy`` and ``triad`` in GB/s."""
    kept = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            return _measure(quick)
    finally:
        torch.set_num_threads(kept)


def _measure(quick: bool) -> dict[str, float]:
    repeats = 2 if quick else 5
    sides = (512,) if quick else _GEMM_SIDES
    convolutions = ((64, 32, 24),) if quick else CONVOLUTIONS
    peaks: dict[str, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        peaks[f"gemm_{name}"] = max(_gemm(side, dtype, repeats) for side in sides)
        peaks[f"conv3d_{name}"] = max(_conv(shape, dtype, repeats) for shape in convolutions)
    peaks |= _streams(_STREAM_BYTES // (16 if quick else 1), repeats)
    return {name: round(value, 1) for name, value in peaks.items()}


def _gemm(side: int, dtype: torch.dtype, repeats: int) -> float:
    a, b = torch.randn(2, side, side).to(dtype)
    return 2 * side**3 / _best(lambda: a @ b, repeats) / 1e9


def _conv(shape: tuple[int, int, int], dtype: torch.dtype, repeats: int) -> float:
    """The better of the two memory layouts."""
    into, out, side = shape
    flop = 2 * 27 * into * out * side**3
    best = 0.0
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        x = torch.randn(1, into, side, side, side).to(dtype).contiguous(memory_format=layout)
        weight = torch.randn(out, into, 3, 3, 3).to(dtype).contiguous(memory_format=layout)
        rate = flop / _best(partial(F.conv3d, x, weight, padding=1), repeats) / 1e9
        best = max(best, rate)
    return best


def _streams(size: int, repeats: int) -> dict[str, float]:
    a, b, c = torch.ones(3, size // 4)
    copy = _best(lambda: a.copy_(b), repeats)
    triad = _best(lambda: torch.add(b, c, alpha=3.0, out=a), repeats)
    return {"copy": 2 * size / copy / 1e9, "triad": 3 * size / triad / 1e9}


def _best(work: Callable[[], object], repeats: int) -> float:
    work()
    return min(time_once(work) for _ in range(repeats))
