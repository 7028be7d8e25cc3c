"""The selective scan in plain PyTorch: exact, blocked, with bounded memory, on any device.

The recurrence h_t = a_t h_(t-1) + x_t is linear, so a block of tokens can be cut into chunks that
advance side by side. First from a zero state, which gives the state each chunk adds; chained with
the chunks' whole decays, these say where each chunk truly starts. From there the chunks advance
once more and leave the states of all tokens. Nothing is divided and every factor is at most 1, so
nothing overflows: the result is exact up to rounding.

Blocks follow each other and share two buffers, so memory holds the states of one block only, never
(B, D, L, N). The backward pass knows the state before each block and replays one block at a time,
last one first; the gradient of the states obeys the same recurrence backwards in time.

Symbols: s sequence (batch and group), t token in its chunk, k chunk, n state, d channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from model_core.ops.scan_inputs import ScanInputs

_CHUNK = 16
"""Tokens that advance one by one."""
_BLOCK_STATES = 3 * 2**18
"""States of one block: 3 MiB in float32, so that both buffers stay in a processor's cache."""
_BLOCK_STATES_ELSEWHERE = 2**25
"""Likewise on other devices, where few large operations count."""
_LOG2_E = 1 / math.log(2)


def scan_torch(inputs: ScanInputs) -> torch.Tensor:
    """Run the scan in float32 (float64 for float64 inputs); see the module's first paragraph."""
    work = torch.promote_types(inputs.u.dtype, torch.float32)
    u, delta, A, B, C = (x.to(work) for x in inputs.required())
    if inputs.delta_bias is not None:
        delta = delta + inputs.delta_bias.to(work)[None, :, None]
    if inputs.delta_softplus:
        delta = F.softplus(delta)
    with torch.autocast(u.device.type, enabled=False):  # it would round the products with C
        y = _scan(delta, delta * u, A, B, C)
    if inputs.D is not None:
        y = torch.addcmul(y, u, inputs.D.to(work)[:, None])
    if inputs.z is not None:
        y = y * F.silu(inputs.z.to(work))
    return y.to(inputs.u.dtype)


def _scan(
    delta: torch.Tensor, drive: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> torch.Tensor:
    """Bring everything to one sequence per batch item and group, tokens before channels."""
    batch, channels, length = delta.shape
    groups = B.shape[1]
    pad = -length % min(length, _CHUNK)

    def tokens(x: torch.Tensor) -> torch.Tensor:  # (B, G·D, L) or (B, G, N, L) → (S, L, D or N)
        x = x.reshape(batch * groups, -1, length)
        # A padded token has Δ = 0: it decays nothing and adds nothing.
        return (F.pad(x, (0, pad)) if pad else x).transpose(1, 2)

    rates = A.reshape(groups, channels // groups, -1).transpose(1, 2)  # (G, N, D)
    rates = rates.repeat(batch, 1, 1)
    y: torch.Tensor = _Scan.apply(  # type: ignore[no-untyped-call]
        tokens(delta), tokens(drive), rates, tokens(B), tokens(C)
    )
    return y[:, :length].transpose(1, 2).reshape(batch, channels, length)


class _Scan(torch.autograd.Function):
    """delta, drive = delta · u (S, L, D); rates (S, N, D); B, C (S, L, N); L in whole chunks."""

    @staticmethod
    def forward(
        ctx: Any,
        delta: torch.Tensor,
        drive: torch.Tensor,
        rates: torch.Tensor,
        B: torch.Tensor,
        C: torch.Tensor,
    ) -> torch.Tensor:
        rates = rates.contiguous()
        y = torch.empty_like(delta)
        state = torch.zeros_like(rates)
        before = []  # the state at the start of each block
        for block in _blocks(delta, rates):
            if any(ctx.needs_input_grad):
                before.append(state)
            _advance(block, delta, drive, rates, B, state)
            block.paste(_contract(block.cut(C), block.x), y)
            state = block.x[-1, :, -1].clone()
        ctx.save_for_backward(delta, drive, rates, B, C, *before)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.autocast(grads[0].device.type, enabled=False):
            return _gradients(grads[0], *ctx.saved_tensors)


def _gradients(
    d_y: torch.Tensor,
    delta: torch.Tensor,
    drive: torch.Tensor,
    rates: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    *before: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """The gradients of the five inputs of `_Scan`; ``before`` is the state before each block."""
    d_delta, d_drive, d_B, d_C = (torch.empty_like(x) for x in (delta, drive, B, C))
    d_rates, d_state = torch.zeros_like(rates), torch.zeros_like(rates)
    blocks = list(_blocks(delta, rates))
    for block, state in zip(reversed(blocks), reversed(before), strict=True):
        starts = _advance(block, delta, drive, rates, B, state)
        dt, dy = block.cut(delta), block.cut(d_y)
        block.paste(_contract(dy, block.x.transpose(-1, -2)), d_C)
        g = _outer(dy, block.cut(C))
        _retreat(block, dt, rates, g, d_state)
        d_state = (block.a[0, :, 0] * g[0, :, 0]).clone()
        block.paste(_contract(block.cut(drive), g.transpose(-1, -2)), d_B)
        block.paste(_contract(block.cut(B), g), d_drive)
        # The gradient of log a: g times the part of the state that came through the decay.
        g.mul_(block.a).mul_(torch.cat((starts[None], block.x[:-1])))
        block.paste((g * rates[:, None]).sum(-2), d_delta)
        d_rates += g.mul_(dt[..., None, :]).sum((0, 2))
    return d_delta, d_drive, d_rates, d_B, d_C


@dataclass(frozen=True, kw_only=True)
class _Block:
    """A run of whole chunks, and the buffers that hold its states while it is worked on."""

    span: slice
    a: torch.Tensor
    """(T, S, K, N, D): the decay of each state at each token."""
    x: torch.Tensor
    """(T, S, K, N, D): what enters the states; after `_advance` the states themselves."""

    def cut(self, whole: torch.Tensor) -> torch.Tensor:
        """The block's part of (S, L, D or N), dense as (T, S, K, D or N)."""
        return self._place(whole).contiguous()

    def paste(self, part: torch.Tensor, whole: torch.Tensor) -> None:
        """Write (T, S, K, D or N) to the block's place in (S, L, D or N)."""
        self._place(whole).copy_(part)

    def _place(self, whole: torch.Tensor) -> torch.Tensor:
        steps, sequences, chunks = self.a.shape[:3]
        split = (sequences, chunks, steps, whole.shape[-1])
        return whole[:, self.span].view(split).movedim(2, 0)


def _blocks(delta: torch.Tensor, rates: torch.Tensor) -> Iterator[_Block]:
    """Cut (S, L, D) into blocks, first to last; all use the same two buffers."""
    length, size = delta.shape[1], rates.numel()
    steps = min(length, _CHUNK)
    states = _BLOCK_STATES if delta.device.type == "cpu" else _BLOCK_STATES_ELSEWHERE
    chunks = min(length // steps, max(1, states // (steps * size)))
    buffers = delta.new_empty(2, steps * chunks * size)
    for start in range(0, length, steps * chunks):
        here = min(chunks, (length - start) // steps)
        shape = (2, steps, rates.shape[0], here, *rates.shape[1:])
        a, x = buffers[:, : steps * here * size].view(shape)
        yield _Block(span=slice(start, start + steps * here), a=a, x=x)


def _advance(
    block: _Block,
    delta: torch.Tensor,
    drive: torch.Tensor,
    rates: torch.Tensor,
    B: torch.Tensor,
    state: torch.Tensor,
) -> torch.Tensor:
    """Leave every state of the block in ``block.x``; return those before each chunk, (S, K, N, D).

    ``state`` (S, N, D) is the one before the block.
    """
    dt = block.cut(delta)
    _decays(dt, rates, block.a)
    _outer(block.cut(drive), block.cut(B), block.x)
    starts = state[:, None].expand_as(block.x[0]).contiguous()
    a, x = block.a.unbind(0), block.x.unbind(0)
    if starts.shape[1] > 1:
        ends = x[0].clone()
        for t in range(1, len(x)):
            torch.addcmul(x[t], a[t], ends, out=ends)
        _chain(starts.unbind(1), ends.unbind(1), _decays(dt.sum(0), rates).unbind(1))
    before = starts
    for t in range(len(x)):
        before = torch.addcmul(x[t], a[t], before, out=x[t])
    return starts


def _retreat(
    block: _Block, dt: torch.Tensor, rates: torch.Tensor, g: torch.Tensor, d_state: torch.Tensor
) -> None:
    """Turn ``g``, the gradient that reaches each state through its own y, into the whole one.

    ``g`` (T, S, K, N, D) is changed in place; ``d_state`` (S, N, D) comes from after the block.
    """
    arriving = d_state[:, None].expand_as(g[0]).contiguous()
    a, per_token = block.a.unbind(0), g.unbind(0)
    if arriving.shape[1] > 1:
        ends = per_token[-1].clone()
        for t in reversed(range(1, len(a))):
            torch.addcmul(per_token[t - 1], a[t], ends, out=ends)
        ends *= a[0]
        backwards = (x.unbind(1)[::-1] for x in (arriving, ends, _decays(dt.sum(0), rates)))
        _chain(*backwards)
    per_token[-1].add_(arriving)
    for t in reversed(range(1, len(a))):
        per_token[t - 1].addcmul_(a[t], per_token[t])


def _chain(
    starts: tuple[torch.Tensor, ...],
    ends: tuple[torch.Tensor, ...],
    decays: tuple[torch.Tensor, ...],
) -> None:
    """Fill ``starts`` after the first: a chunk starts where the one before it truly ends."""
    for before, after, end, decay in zip(starts, starts[1:], ends, decays, strict=False):
        torch.addcmul(end, decay, before, out=after)


def _decays(dt: torch.Tensor, rates: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """exp(dt · rates): (…, S, K, D) by (S, N, D) → (…, S, K, N, D)."""
    # exp2: its kernel in PyTorch is several times faster than that of exp on some processors.
    return torch.mul(dt[..., None, :], (rates * _LOG2_E)[:, None], out=out).exp2_()


def _outer(p: torch.Tensor, q: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """(…, D) by (…, N) → (…, N, D)."""
    return torch.mul(p[..., None, :], q[..., None], out=out)


def _contract(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(…, M) by (…, M, R) → (…, R), summed over M."""
    return torch.matmul(p[..., None, :], q).squeeze(-2)
