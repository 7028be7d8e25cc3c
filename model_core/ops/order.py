"""The three orders in which SegMamba reads a volume's tokens, as index vectors.

Tokens of a (D, H, W) grid lie row-major: axis 0 slowest. An order is an int64 vector ``order`` of
length L = D·H·W; the t-th token of the scanned sequence is token ``order[t]`` of the grid.

* ``forward``      0, 1, 2, …
* ``reverse``      …, 2, 1, 0
* ``inter_slice``  walks through the slices at one in-plane position before it moves to the next:
  the L tokens are cut into ``num_slices`` equal runs and read run-innermost (SegMamba, arXiv
  2401.13560, "tri-orientated Mamba"). A run is one slice exactly when ``num_slices`` equals D.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, get_args

import torch

from model_core.errors import ShapeError

ScanDirection = Literal["forward", "reverse", "inter_slice"]
SCAN_DIRECTIONS: Final[tuple[ScanDirection, ...]] = get_args(ScanDirection)


def scan_order(direction: ScanDirection, length: int, num_slices: int = 1) -> torch.Tensor | None:
    """Return the index vector of a scan direction, or None for the order as it lies.

    Args:
        direction: one of `SCAN_DIRECTIONS`.
        length: number of tokens L.
        num_slices: number of runs for ``inter_slice``; ignored otherwise.

    Raises:
        ShapeError: ``length`` is not a multiple of ``num_slices``.
    """
    if direction == "forward":
        return None
    if direction == "inter_slice" and length % num_slices:
        raise ShapeError(
            f"The inter-slice scan needs a token count that is a multiple of num_slices; "
            f"got {length} tokens and num_slices={num_slices}. "
            f"Choose a window whose tokens divide, or num_slices=None to follow the grid."
        )
    return _index(direction, length, num_slices if direction == "inter_slice" else 1)


@lru_cache(maxsize=64)
def _index(direction: ScanDirection, length: int, num_slices: int) -> torch.Tensor:
    # kept, and so made for training too, though the first call may come from an inference
    with torch.inference_mode(False):
        tokens = torch.arange(length)
        if direction == "reverse":
            return tokens.flip(0)
        return tokens.view(num_slices, -1).t().flatten()


def inverse_order(order: torch.Tensor) -> torch.Tensor:
    """Return the vector that undoes ``order``: ``x[order][inverse_order(order)] == x``."""
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel(), device=order.device)
    return inverse
