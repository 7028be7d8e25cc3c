"""The Triton kernels of the selective scan: forward, and the chain over chunks.

Imports Triton, so only `model_core.ops.scan_triton` may import it, and only when it is used.

One program of 32 threads owns a block of channels of one batch item over one chunk of the sequence,
holds its states in registers and walks its tokens one after the other. Chunks run side by side:
first each from a zero state, for its end; `chain` turns ends into true starts; then each once more
from there. Everything is float32 inside. Symbols are those of the paper (arXiv 2312.00752).

``scan`` is a `model_core.ops.scan_triton_plan.Scan`: tensors with their strides, and sizes. What is
None in it is compiled away. Where every program stands is found once, by `place`, and handed on.
"""

from __future__ import annotations

import triton
import triton.language as tl

from model_core.ops.scan_triton_plan import Where

# mypy: disable-error-code="untyped-decorator"
# Triton ships no types, and its decorator is what makes a kernel of a function.


@triton.jit
def softplus(x: tl.tensor) -> tl.tensor:
    """log(1 + exp x) through 2·artanh(e / (2 + e)), e = exp(−|x|): small steps keep all digits."""
    e = tl.exp(-tl.abs(x))
    s = e / (2.0 + e)
    q = s * s
    series = 1.0 / 13 + q * (1.0 / 15)
    series = 1.0 / 9 + q * (1.0 / 11 + q * series)
    series = 1.0 / 5 + q * (1.0 / 7 + q * series)
    series = 1.0 + q * (1.0 / 3 + q * series)
    return tl.maximum(x, 0.0) + 2.0 * s * series


@triton.jit
def sigmoid(x: tl.tensor) -> tl.tensor:
    """1 / (1 + exp −x); an overflow of the exponential gives 0, as it should."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def place(
    scan: tl.tuple, N: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr
) -> tl.tuple:
    """This program's item, group, channels and states, which exist, and their A, bias and D.

    Axis 1 of the grid counts blocks of channels, group after group; axis 2 is the batch.
    """
    sizes = scan.sizes
    blocks = tl.cdiv(sizes.per_group, CHANNELS)
    block, item = tl.program_id(1), tl.program_id(2).to(tl.int64)
    group = (block // blocks).to(tl.int64)
    within = (block % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    channels, here = group * sizes.per_group + within, within < sizes.per_group
    states = tl.arange(0, STATES)
    present = states < N
    at = states[:, None] * sizes.channels + channels[None, :]
    rates = tl.load(scan.rates + at, mask=present[:, None] & here[None, :], other=0.0)
    bias, skip = parameter(scan.bias, channels, here), parameter(scan.skip, channels, here)
    return Where(item, group, channels, here, states, present, rates, bias, skip)


@triton.jit
def parameter(vector: tl.tensor, channels: tl.tensor, here: tl.tensor) -> tl.tensor:
    """A parameter (D) of this program's channels, or 0 where there is none."""
    if vector is None:
        row = tl.zeros(channels.shape, tl.float32)
    else:
        row = tl.load(vector + channels, mask=here, other=0.0)
    return row


@triton.jit
def table(
    scan: tl.tuple, where: tl.tuple, row: tl.tensor, rows: tl.tensor, N: tl.constexpr
) -> tl.tuple:
    """Offsets of this program's states in a table (B, rows, N, D), and which exist."""
    row = ((where.item * rows + row) * N + where.states[:, None]) * scan.sizes.channels
    return row + where.channels[None, :], where.present[:, None] & where.here[None, :]


@triton.jit
def locate(scan: tl.tuple, where: tl.tuple, t: tl.tensor) -> tl.tuple:
    """Where the t-th token of the scanned sequence lies, and whether it and the channels exist."""
    inside = t < scan.sizes.length
    token = t if scan.order is None else tl.load(scan.order + t, mask=inside, other=0)
    return token.to(tl.int64), inside, where.here & inside  # wide enough for any offset


@triton.jit
def load_row(view: tl.tuple, where: tl.tuple, token: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """One token of a (B, D, L) tensor, (CHANNELS); 0 where masked."""
    at = where.item * view.batch + token * view.token + where.channels * view.channel
    return tl.load(view.data + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def store_row(
    view: tl.tuple, where: tl.tuple, token: tl.tensor, value: tl.tensor, mask: tl.tensor
) -> None:
    """Write one token of a (B, D, L) tensor, rounded to its dtype."""
    at = where.item * view.batch + token * view.token + where.channels * view.channel
    tl.store(view.data + at, value.to(view.data.dtype.element_ty), mask=mask)


@triton.jit
def load_projection(
    view: tl.tuple, where: tl.tuple, token: tl.tensor, inside: tl.tensor
) -> tl.tensor:
    """One token of B or C (B, G, N, L), (STATES); 0 where it does not exist."""
    at = where.item * view.batch + where.group * view.group
    at += token * view.token + where.states * view.state
    return tl.load(view.data + at, mask=where.present & inside, other=0.0).to(tl.float32)


@triton.jit
def load_step(
    scan: tl.tuple,
    where: tl.tuple,
    token: tl.tensor,
    inside: tl.tensor,
    mask: tl.tensor,
    SOFTPLUS: tl.constexpr,
) -> tl.tuple:
    """Δ of one token before and after softplus.

    After it is 0 past the end of the sequence: such a token decays nothing and adds nothing.
    """
    raw = load_row(scan.delta, where, token, mask) + where.bias
    dt = raw
    if SOFTPLUS:
        dt = softplus(raw)
    return raw, tl.where(inside, dt, 0.0)


@triton.jit
def step(
    scan: tl.tuple, where: tl.tuple, h: tl.tensor, t: tl.tensor, SOFTPLUS: tl.constexpr
) -> tl.tuple:
    """Advance the states by the t-th token; also returns its Δ and its u."""
    token, inside, mask = locate(scan, where, t)
    _, dt = load_step(scan, where, token, inside, mask, SOFTPLUS)
    x = load_row(scan.u, where, token, mask)
    b = load_projection(scan.B, where, token, inside)
    h = tl.exp2(dt[None, :] * where.rates) * h + (dt * x)[None, :] * b[:, None]
    return h, dt, x


@triton.jit
def write_output(
    scan: tl.tuple, out: tl.tuple, where: tl.tuple, h: tl.tensor, x: tl.tensor, t: tl.tensor
) -> None:
    """Write y = C·h + D u of the t-th token, gated by silu(z)."""
    token, inside, mask = locate(scan, where, t)
    c = load_projection(scan.C, where, token, inside)
    y = tl.sum(h * c[:, None], axis=0) + where.skip * x
    if scan.z is not None:
        gate = load_row(scan.z, where, token, mask)
        y = y * gate * sigmoid(gate)
    store_row(out, where, token, y, mask)


@triton.jit(do_not_specialize=["first"])
def advance(  # noqa: PLR0913 - what may be read and written, each with its name
    scan: tl.tuple,
    out: tl.tuple,
    starts: tl.tensor,
    ends: tl.tensor,
    sums: tl.tensor,
    pieces: tl.tensor,
    first: tl.tensor,
    SOFTPLUS: tl.constexpr,
    N: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """Walk one chunk, from ``starts`` (None: from zero), and write what is asked for.

    ``out`` takes y; ``ends`` and ``sums`` the last state and the sum of Δ; ``pieces`` the state
    before every STEP-th token of the chunks from ``first`` on. Axis 0 of the grid counts chunks.
    """
    where, sizes = place(scan, N, STATES, CHANNELS), scan.sizes
    part, chunk = tl.program_id(0), first + tl.program_id(0)
    count = sizes.chunk // STEP
    at, exist = table(scan, where, chunk, sizes.chunks, N)
    if starts is None:
        h = tl.zeros((STATES, CHANNELS), tl.float32)
    else:
        h = tl.load(starts + at, mask=exist, other=0.0)
    total = tl.zeros((CHANNELS,), tl.float32)
    for index in range(count):
        if pieces is not None:
            piece, _ = table(scan, where, part * count + index, tl.num_programs(0) * count, N)
            tl.store(pieces + piece, h, mask=exist)
        for i in tl.static_range(STEP):
            t = chunk * sizes.chunk + index * STEP + i
            h, dt, x = step(scan, where, h, t, SOFTPLUS)
            total += dt
            if out is not None:
                write_output(scan, out, where, h, x, t)
    if ends is not None:
        tl.store(ends + at, h, mask=exist)
        row = where.item * sizes.chunks + chunk
        tl.store(sums + row * sizes.channels + where.channels, total, mask=where.here)


@triton.jit
def chain(
    carries: tl.tensor,
    sums: tl.tensor,
    rates: tl.tensor,
    sizes: tl.tuple,
    REVERSE: tl.constexpr,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
    AHEAD: tl.constexpr,
) -> tl.tensor:
    """Turn what each chunk adds to the state, (B, chunks, N, D), into the state it starts from.

    In place; from the last chunk to the first if REVERSE. AHEAD chunks are loaded before their
    links are made, so that a link does not wait for memory. Programs: (block of N·D, batch item).
    """
    item = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    width = N * sizes.channels
    mask = at < width
    rate = tl.load(rates + at, mask=mask, other=0.0)
    channel = at % sizes.channels
    state = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, sizes.chunks, AHEAD):
        added: tl.tuple = ()
        decays: tl.tuple = ()
        for i in tl.static_range(AHEAD):
            row, here = link(item, start + i, sizes, mask, REVERSE)
            more = tl.load(carries + row * width + at, mask=here, other=0.0)
            total = tl.load(sums + row * sizes.channels + channel, mask=here, other=0.0)
            added = added + (more,)  # noqa: RUF005 - Triton does not unpack
            decays = decays + (tl.exp2(total * rate),)  # noqa: RUF005
        for i in tl.static_range(AHEAD):
            row, here = link(item, start + i, sizes, mask, REVERSE)
            tl.store(carries + row * width + at, state, mask=here)
            state = decays[i] * state + added[i]


@triton.jit
def link(
    item: tl.tensor, index: tl.tensor, sizes: tl.tuple, mask: tl.tensor, REVERSE: tl.constexpr
) -> tl.tensor:
    """The row of the index-th chunk in walking order, and where it exists."""
    chunk = index
    if REVERSE:
        chunk = sizes.chunks - 1 - index
    return item * sizes.chunks + chunk, mask & (index < sizes.chunks)
