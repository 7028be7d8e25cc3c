"""The selective scan in plain PyTorch: exact, blocked, with bounded memory, on any device.

The recurrence h_t = a_t h_(t-1) + b_t is linear, so a block of tokens can be cut into chunks that
advance side by side from a zero state. Afterwards each chunk is told the state H it should have
started from: it adds C · exp(A S_t) H, S_t the sum of steps since the chunk's first token. Nothing
is divided and every factor is at most 1, so nothing overflows: the result is exact up to rounding.

Blocks follow each other in sequence and are recomputed in the backward pass (checkpointing), so
memory holds the states of one block only, never (B, D, L, N).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model_core.ops.scan_inputs import ScanInputs

_CHUNK = 32
"""Tokens that advance one by one; a block holds up to _CHUNK² tokens."""
_BLOCK = _CHUNK * _CHUNK


def scan_torch(inputs: ScanInputs) -> torch.Tensor:
    """Run the scan in float32 (float64 for float64 inputs); see the module's first paragraph."""
    work = torch.promote_types(inputs.u.dtype, torch.float32)
    u, delta, A, B, C = (x.to(work) for x in inputs.required())
    if inputs.delta_bias is not None:
        delta = delta + inputs.delta_bias.to(work)[None, :, None]
    if inputs.delta_softplus:
        delta = F.softplus(delta)
    y = _scan_blocks(u, delta, A, B, C)
    if inputs.D is not None:
        y = y + inputs.D.to(work)[None, :, None] * u
    if inputs.z is not None:
        y = y * F.silu(inputs.z.to(work))
    return y.to(inputs.u.dtype)


def _scan_blocks(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> torch.Tensor:
    """Walk the blocks of tokens, handing the state from one to the next."""
    batch, channels, length = u.shape
    groups = B.shape[1]
    # (B, G, D/G, …): a group shares its B and C.
    u, delta = (x.reshape(batch, groups, -1, length) for x in (u, delta))
    A = A.reshape(groups, -1, A.shape[1])
    state = u.new_zeros(batch, groups, channels // groups, A.shape[-1])
    tracked = torch.is_grad_enabled() and any(x.requires_grad for x in (u, delta, A, B, C))
    outputs = []
    for start in range(0, length, _BLOCK):
        block = slice(start, start + _BLOCK)
        arguments = (u[..., block], delta[..., block], A, B[..., block], C[..., block], state)
        if tracked:
            y, state = checkpoint(_scan_block, *arguments, use_reentrant=False)
        else:
            y, state = _scan_block(*arguments)
        outputs.append(y)
    return torch.cat(outputs, dim=-1).flatten(1, 2)


def _scan_block(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scan one block: u, delta (B, G, D, L); B, C (B, G, N, L); state (B, G, D, N)."""
    length = u.shape[-1]
    pad = -length % _CHUNK
    # A padded token has Δ = 0: it decays nothing and adds nothing.
    u, delta, B, C = (
        F.pad(x, (0, pad)).reshape(*x.shape[:-1], -1, _CHUNK).movedim(-1, 0)
        for x in (u, delta, B, C)
    )  # (T, B, G, D or N, chunks): the token within its chunk first
    rates = A[:, :, None, :]  # (G, D, 1, N)
    h = torch.zeros((), dtype=u.dtype, device=u.device)
    local = []
    for t in range(_CHUNK):
        drive = (delta[t] * u[t])[..., None] * B[t].transpose(-1, -2)[:, :, None]
        h = torch.exp(delta[t][..., None] * rates) * h + drive  # (B, G, D, chunks, N)
        local.append((h * C[t].transpose(-1, -2)[:, :, None]).sum(-1))
    elapsed = delta.cumsum(0)  # (T, B, G, D, chunks)
    starts, state = _chunk_starts(torch.exp(elapsed[-1][..., None] * rates), h, state)
    carried = [
        (
            torch.exp(elapsed[t][..., None] * rates) * starts * C[t].transpose(-1, -2)[:, :, None]
        ).sum(-1)
        for t in range(_CHUNK)
    ]
    y = torch.stack(local, dim=-1) + torch.stack(carried, dim=-1)
    return y.flatten(-2)[..., :length], state


def _chunk_starts(
    decay: torch.Tensor, ends: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Chain the chunks: the true state before each (B, G, D, chunks, N), and after the last."""
    starts = []
    for chunk in range(decay.shape[-2]):
        starts.append(state)
        state = decay[..., chunk, :] * state + ends[..., chunk, :]
    return torch.stack(starts, dim=-2), state
