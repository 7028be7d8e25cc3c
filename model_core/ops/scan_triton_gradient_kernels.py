"""The Triton kernels of the selective scan's gradient.

Imports Triton, as `model_core.ops.scan_triton_kernels` does, whose first paragraphs hold here too.

The gradient of the states obeys the same recurrence backwards in time:
g_t = C_t dy_t + exp(Δ_(t+1) A) g_(t+1). So `collect` finds what each chunk hands to the one before
it, `chain` adds that up over chunks, and `differentiate` walks each chunk backwards from there. The
states themselves are replayed, STEP tokens at a time, from those that `advance` left in ``pieces``.
Sums over channels, tokens and batch items are left to the caller as partial sums, not added up
atomically: results repeat to the last bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from model_core.ops.scan_triton_kernels import (
    load_projection,
    load_row,
    load_step,
    locate,
    place,
    sigmoid,
    step,
    store_row,
    table,
)

# mypy: disable-error-code="untyped-decorator"
# Triton ships no types, and its decorator is what makes a kernel of a function.

_LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def collect(
    scan: tl.tuple,
    dout: tl.tuple,
    ends: tl.tensor,
    SOFTPLUS: tl.constexpr,
    N: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """Write the gradient by the state before each chunk that comes from the chunk's own results."""
    where, sizes = place(scan, N, STATES, CHANNELS), scan.sizes
    chunk = tl.program_id(0)
    g = tl.zeros((STATES, CHANNELS), tl.float32)
    for index in range(sizes.chunk // STEP):
        for i in tl.static_range(STEP):
            t = (chunk + 1) * sizes.chunk - 1 - index * STEP - i
            token, inside, mask = locate(scan, where, t)
            _, dt = load_step(scan, where, token, inside, mask, SOFTPLUS)
            dy = load_row(dout, where, token, mask)
            if scan.z is not None:
                gate = load_row(scan.z, where, token, mask)
                dy = dy * gate * sigmoid(gate)
            c = load_projection(scan.C, where, token, inside)
            g = tl.exp2(dt[None, :] * where.rates) * (g + c[:, None] * dy[None, :])
    at, exist = table(scan, where, chunk, sizes.chunks, N)
    tl.store(ends + at, g, mask=exist)


@triton.jit
def replay(
    scan: tl.tuple,
    where: tl.tuple,
    h: tl.tensor,
    t: tl.tensor,
    SOFTPLUS: tl.constexpr,
    STEP: tl.constexpr,
) -> tl.tuple:
    """The states before, between and after STEP tokens from the t-th on, all in registers."""
    states: tl.tuple = (h,)
    for i in tl.static_range(STEP):
        h, _, _ = step(scan, where, h, t + i, SOFTPLUS)
        states = states + (h,)  # noqa: RUF005 - Triton does not unpack
    return states


@triton.jit
def through_gate(
    scan: tl.tuple,
    where: tl.tuple,
    dz: tl.tuple,
    dy: tl.tensor,
    y: tl.tensor,
    token: tl.tensor,
    mask: tl.tensor,
) -> tl.tensor:
    """Write the gradient by z; return the one by the ungated result ``y``."""
    if scan.z is not None:
        gate = load_row(scan.z, where, token, mask)
        part = sigmoid(gate)
        store_row(dz, where, token, dy * y * part * (1.0 + gate * (1.0 - part)), mask)
        dy = dy * gate * part
    return dy


@triton.jit
def retreat(  # noqa: PLR0913 - one token with all that surrounds it
    scan: tl.tuple,
    where: tl.tuple,
    grads: tl.tuple,
    g: tl.tensor,
    before: tl.tensor,
    after: tl.tensor,
    t: tl.tensor,
    row: tl.tensor,
    SOFTPLUS: tl.constexpr,
    N: tl.constexpr,
) -> tl.tuple:
    """Go back over the t-th token, with the states before and after it; write its gradients.

    ``g`` is the gradient by the state after it through later tokens. Returns that by the state
    before it, and what the token adds to dA, dD and dbias.
    """
    states, present, rates, skip = where.states, where.present, where.rates, where.skip
    token, inside, mask = locate(scan, where, t)
    raw, dt = load_step(scan, where, token, inside, mask, SOFTPLUS)
    x, dy = load_row(scan.u, where, token, mask), load_row(grads.out, where, token, mask)
    b = load_projection(scan.B, where, token, inside)
    c = load_projection(scan.C, where, token, inside)
    y = tl.sum(after * c[:, None], axis=0) + skip * x
    dy = through_gate(scan, where, grads.z, dy, y, token, mask)
    tl.store(grads.C + row * N + states, tl.sum(after * dy[None, :], axis=1), mask=present)
    g += c[:, None] * dy[None, :]
    tl.store(grads.B + row * N + states, tl.sum(g * (dt * x)[None, :], axis=1), mask=present)
    by_drive = tl.sum(g * b[:, None], axis=0)
    g *= tl.exp2(dt[None, :] * rates)
    by_decay = g * before  # the gradient by the logarithm of the decay
    by_step = tl.sum(by_decay * rates, axis=0) * _LN_2 + by_drive * x
    if SOFTPLUS:
        by_step *= sigmoid(raw)
    by_step = tl.where(mask, by_step, 0.0)
    store_row(grads.u, where, token, by_drive * dt + dy * skip, mask)
    store_row(grads.delta, where, token, by_step, mask)
    return g, by_decay * dt[None, :], dy * x, by_step


@triton.jit(do_not_specialize=["first"])
def differentiate(  # noqa: PLR0913 - half of them are what it is compiled for
    scan: tl.tuple,
    grads: tl.tuple,
    arriving: tl.tensor,
    pieces: tl.tensor,
    first: tl.tensor,
    SOFTPLUS: tl.constexpr,
    N: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """Walk the chunks from ``first`` on backwards and write every gradient.

    ``arriving`` (B, chunks, N, D) is the gradient by the state after each chunk, from later ones.
    ``grads`` is a `model_core.ops.scan_triton_plan.Grads`.
    """
    where, sizes = place(scan, N, STATES, CHANNELS), scan.sizes
    part, chunk = tl.program_id(0), first + tl.program_id(0)
    count = sizes.chunk // STEP
    at, exist = table(scan, where, chunk, sizes.chunks, N)
    g = tl.load(arriving + at, mask=exist, other=0.0)
    dA = tl.zeros((STATES, CHANNELS), tl.float32)
    dD, dbias = tl.zeros((CHANNELS,), tl.float32), tl.zeros((CHANNELS,), tl.float32)
    # The row in dB and dC, (B, blocks, tokens of all these chunks, N), of the chunk's first token.
    top = (where.item * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + part
    for index in range(count):
        piece = count - 1 - index
        at_piece, _ = table(scan, where, part * count + piece, tl.num_programs(0) * count, N)
        h = tl.load(pieces + at_piece, mask=exist, other=0.0)
        states = replay(scan, where, h, chunk * sizes.chunk + piece * STEP, SOFTPLUS, STEP)
        for j in tl.static_range(STEP):
            before, after = states[STEP - 1 - j], states[STEP - j]
            t = piece * STEP + STEP - 1 - j
            row = top * sizes.chunk + t
            t += chunk * sizes.chunk
            g, to_A, to_D, to_bias = retreat(
                scan, where, grads, g, before, after, t, row, SOFTPLUS, N
            )
            dA += to_A
            dD += to_D
            dbias += to_bias
    tl.store(grads.A + at, dA, mask=exist)
    vector = (where.item * sizes.chunks + chunk) * sizes.channels + where.channels
    tl.store(grads.D + vector, dD, mask=where.here)
    tl.store(grads.bias + vector, dbias, mask=where.here)
