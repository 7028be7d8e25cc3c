"""Launches the Triton kernels of the selective scan: grids, scratch memory, closing sums.

Imports Triton, so only `model_core.ops.scan_triton` may import it, and only when it is used. Every
launch goes through the ``run`` that it is given: on a GPU and in Triton's interpreter that is
`launch`; the compilation ahead of time records what would be launched instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch

from model_core.ops.scan_triton_gradient_kernels import collect, differentiate
from model_core.ops.scan_triton_kernels import advance, chain
from model_core.ops.scan_triton_plan import (
    STEP,
    Grads,
    Operands,
    Plan,
    Scan,
    describe,
    plan,
    rows,
)

WARPS: Final = 1
"""Warps of 32 threads in a program: no program waits for another part of itself."""
_CHAIN_BLOCK: Final = 32
_CHAIN_AHEAD: Final = 8

Run = Callable[..., None]


def launch(kernel: Any, grid: tuple[int, ...], **arguments: Any) -> None:
    """Run a kernel over a grid of programs."""
    kernel[grid](**arguments, num_warps=WARPS, num_stages=1)


def forward(
    operands: Operands, out: torch.Tensor, run: Run = launch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write the scan to ``out`` (B, D, L).

    Returns the states before every chunk (B, chunks, N, D) and the sums of Δ (B, chunks, D), from
    which `backward` starts.
    """
    scan = _Launcher.of(operands, run)
    starts = scan.states_by_chunk(out)
    sums = scan.how.table(out, starts.shape[1], starts.shape[3])
    scan.advance(ends=starts, sums=sums)
    scan.chain(starts, sums, backwards=False)
    scan.advance(starts=starts, out=rows(out))
    return starts, sums


class Gradients(NamedTuple):
    """Float32 gradients of A, B, C, D and delta_bias, shaped like them; B and C (B, G, L, N)."""

    A: torch.Tensor
    B: torch.Tensor
    C: torch.Tensor
    D: torch.Tensor
    delta_bias: torch.Tensor


def backward(
    operands: Operands,
    dout: torch.Tensor,
    kept: tuple[torch.Tensor, torch.Tensor],
    written: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
    run: Run = launch,
) -> Gradients:
    """Write the gradients of u, delta and z to ``written``; return the others.

    ``kept`` is what `forward` returned.
    """
    scan, (starts, sums) = _Launcher.of(operands, run), kept
    arriving = scan.states_by_chunk(starts)
    scan.over_chunks(collect, arriving.shape[1], dout=rows(dout), ends=arriving)
    scan.chain(arriving, sums, backwards=True)
    batch, groups, states, length = operands.B.shape
    dA, dD, dbias = (torch.empty_like(x) for x in (starts, sums, sums))
    dB, dC = (dA.new_empty(batch, groups, length, states) for _ in range(2))
    du, ddelta, dz = (None if x is None else rows(x) for x in written)
    for first, count in scan.spans():
        tokens = count * scan.how.sizes.chunk
        pieces = scan.how.table(dA, tokens // STEP, *starts.shape[2:])
        B, C = (scan.how.table(dA, scan.how.blocks, tokens, states) for _ in range(2))
        assert du is not None
        assert ddelta is not None
        grads = Grads(rows(dout), du, ddelta, dz, dA, B, C, dD, dbias)
        scan.advance((first, count), starts=starts, pieces=pieces)
        given = {"grads": grads, "arriving": arriving, "pieces": pieces, "first": first}
        scan.over_chunks(differentiate, count, **given)
        for whole, part in ((dB, B), (dC, C)):
            _settle(part, whole, first * scan.how.sizes.chunk, operands.order)
    return Gradients(dA.sum((0, 1)).t().contiguous(), dB, dC, dD.sum((0, 1)), dbias.sum((0, 1)))


class _Launcher(NamedTuple):
    """One scan and what all of its launches share."""

    scan: Scan
    how: Plan
    softplus: bool
    run: Run

    @classmethod
    def of(cls, operands: Operands, run: Run) -> _Launcher:
        how = plan(operands.u, operands.A, operands.B.shape[1])
        return cls(describe(operands, how), how, operands.delta_softplus, run)

    def states_by_chunk(self, like: torch.Tensor) -> torch.Tensor:
        """Unwritten memory (B, chunks, N, D)."""
        sizes = self.how.sizes
        return self.how.table(like, sizes.chunks, self.how.states, sizes.channels)

    def spans(self) -> list[tuple[int, int]]:
        """Runs of chunks that are worked on together, as (first, how many)."""
        chunks, most = self.how.sizes.chunks, self.how.chunks_at_once
        return [(first, min(most, chunks - first)) for first in range(0, chunks, most)]

    def over_chunks(self, kernel: Any, chunks: int, **arguments: Any) -> None:
        """Launch a kernel that walks chunks."""
        grid = (chunks, self.how.blocks, self.how.batch)
        shared = {"scan": self.scan, "SOFTPLUS": self.softplus, **self.how.constants}
        self.run(kernel, grid, **shared, **arguments)

    def advance(self, span: tuple[int, int] | None = None, **wanted: Any) -> None:
        """Walk ``span``, or all chunks; ``wanted`` as `advance` has it."""
        first, count = span or (0, self.how.sizes.chunks)
        nothing = dict.fromkeys(("out", "starts", "ends", "sums", "pieces"))
        self.over_chunks(advance, count, first=first, **(nothing | wanted))

    def chain(self, carries: torch.Tensor, sums: torch.Tensor, *, backwards: bool) -> None:
        """Turn what every chunk adds into what every chunk starts from, in place."""
        width = self.how.states * self.how.sizes.channels
        self.run(
            chain,
            (-(-width // _CHAIN_BLOCK), self.how.batch),
            carries=carries,
            sums=sums,
            rates=self.scan.rates,
            sizes=self.how.sizes,
            REVERSE=backwards,
            N=self.how.states,
            BLOCK=_CHAIN_BLOCK,
            AHEAD=_CHAIN_AHEAD,
        )


def _settle(
    part: torch.Tensor, whole: torch.Tensor, start: int, order: torch.Tensor | None
) -> None:
    """Sum (B, blocks, tokens, N) over each group's blocks to its tokens' places in (B, G, L, N)."""
    batch, groups, length, states = whole.shape
    stop = min(start + part.shape[2], length)
    summed = part.view(batch, groups, -1, part.shape[2], states).sum(2)[:, :, : stop - start]
    if order is None:
        whole[:, :, start:stop] = summed
    else:
        whole[:, :, order[start:stop].long()] = summed
