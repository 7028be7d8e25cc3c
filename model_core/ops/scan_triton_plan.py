"""How the Triton scan divides its work, and in which form its kernels take tensors; no Triton here.

The same on a GPU and in Triton's interpreter: the plan depends on the problem's sizes alone.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import torch

from model_core.errors import BackendError

MAX_STATES: Final = 256
STEP: Final = 4
"""Tokens whose states the gradient replays at once and holds in registers. With 8 it spills."""
_TILE: Final = 256
"""States of one program: 8 in each of its 32 threads."""
_PROGRAMS: Final = 4096
"""Programs that fill a large GPU; the sequence is cut into chunks until there are as many."""
_CHUNK: Final = (32, 512)
"""Tokens of a chunk, at least and at most; powers of two, and multiples of STEP."""
_SCRATCH_BYTES: Final = 2**28
"""Scratch of the gradient; a longer sequence is worked on some chunks at a time."""
_LOG2_E: Final = 1 / math.log(2)


class Operands(NamedTuple):
    """The arguments of one scan, none of them float64; shapes as in `ScanInputs`; order int32."""

    u: torch.Tensor
    delta: torch.Tensor
    A: torch.Tensor
    B: torch.Tensor
    C: torch.Tensor
    D: torch.Tensor | None
    z: torch.Tensor | None
    delta_bias: torch.Tensor | None
    delta_softplus: bool
    order: torch.Tensor | None


class Rows(NamedTuple):
    """A (B, D, L) tensor as kernels take it: its memory and strides, in values."""

    data: torch.Tensor
    batch: int
    channel: int
    token: int


class Projection(NamedTuple):
    """Likewise a (B, G, N, L) tensor."""

    data: torch.Tensor
    batch: int
    group: int
    state: int
    token: int


class Sizes(NamedTuple):
    """Tokens L, channels D, channels of one group, tokens of one chunk, chunks."""

    length: int
    channels: int
    per_group: int
    chunk: int
    chunks: int


class Scan(NamedTuple):
    """What every kernel reads; parameters are float32."""

    u: Rows
    delta: Rows
    z: Rows | None
    B: Projection
    C: Projection
    rates: torch.Tensor
    """A · log2(e), (N, D): a power of two is what a GPU computes."""
    bias: torch.Tensor | None
    skip: torch.Tensor | None
    order: torch.Tensor | None
    sizes: Sizes


class Grads(NamedTuple):
    """What the gradient reads, ``out``, and writes; A, B, C, D and bias are partial float32 sums.

    A (B, chunks, N, D), D and bias (B, chunks, D) are sums over the tokens of a chunk; B and C
    (B, blocks, tokens of one launch, N) over a block of channels.
    """

    out: Rows
    u: Rows
    delta: Rows
    z: Rows | None
    A: torch.Tensor
    B: torch.Tensor
    C: torch.Tensor
    D: torch.Tensor
    bias: torch.Tensor


class Where(NamedTuple):
    """Where one program stands: its batch item, its group, and blocks of channels and states.

    ``here`` and ``present`` say which of the channels and states exist; ``rates`` (states,
    channels), ``bias`` and ``skip`` (channels) are their parameters.
    """

    item: Any
    group: Any
    channels: Any
    here: Any
    states: Any
    present: Any
    rates: Any
    bias: Any
    skip: Any


class Plan(NamedTuple):
    """The division of one scan."""

    batch: int
    states: int
    channels_at_once: int
    blocks: int
    """Blocks of channels, of all groups together."""
    sizes: Sizes

    @property
    def constants(self) -> dict[str, int]:
        """What the kernels that walk chunks are compiled for."""
        states, channels = power_of_two(self.states), self.channels_at_once
        return {"N": self.states, "STATES": states, "CHANNELS": channels, "STEP": STEP}

    @property
    def chunks_at_once(self) -> int:
        """Chunks whose gradient is computed in one launch, so that its scratch stays bounded."""
        sizes = self.sizes
        replayed = sizes.channels * self.states * sizes.chunk // STEP
        partial = 2 * self.blocks * sizes.chunk * self.states
        fitting = _SCRATCH_BYTES // (4 * self.batch * (replayed + partial))
        return min(sizes.chunks, max(1, fitting))

    def table(self, like: torch.Tensor, *shape: int) -> torch.Tensor:
        """Unwritten float32 memory (B, *shape) on the device of ``like``."""
        return like.new_empty((self.batch, *shape), dtype=torch.float32)


def plan(u: torch.Tensor, A: torch.Tensor, groups: int) -> Plan:
    """Divide the scan of ``u`` (B, D, L) with ``A`` (D, N) and so many groups.

    Raises:
        BackendError: more than 256 states.
    """
    batch, channels, length = map(int, u.shape)
    states = int(A.shape[1])
    if states > MAX_STATES:
        raise BackendError(
            f"The Triton scan takes up to {MAX_STATES} states, got {states}. Use backend='torch'."
        )
    per_group = channels // groups
    at_once = min(32, _TILE // power_of_two(states), power_of_two(per_group))
    blocks = groups * -(-per_group // at_once)
    chunk = _chunk(length * blocks * batch // _PROGRAMS)
    sizes = Sizes(length, channels, per_group, chunk, -(-length // chunk))
    return Plan(batch, states, at_once, blocks, sizes)


def describe(operands: Operands, how: Plan) -> Scan:
    """The operands as kernels take them."""
    u, delta, A, B, C, D, z, bias, _, order = operands
    rates = (A.float() * _LOG2_E).t().contiguous()
    return Scan(
        u=rows(u),
        delta=rows(delta),
        z=None if z is None else rows(z),
        B=Projection(B, *B.stride()),
        C=Projection(C, *C.stride()),
        rates=rates,
        bias=None if bias is None else bias.float().contiguous(),
        skip=None if D is None else D.float().contiguous(),
        order=order,
        sizes=how.sizes,
    )


def rows(x: torch.Tensor) -> Rows:
    """Describe (B, D, L)."""
    return Rows(x, *x.stride())


def power_of_two(least: int) -> int:
    """The smallest power of two that is not below ``least``."""
    return 1 << max(0, least - 1).bit_length()


def _chunk(tokens: int) -> int:
    low, high = _CHUNK
    return max(low, min(high, power_of_two(tokens + 1) // 2))
