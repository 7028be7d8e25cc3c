"""The selective scan as the paper writes it: one token after the other, in float64.

The slow truth that every other backend is tested against. Symbols as in Mamba (arXiv 2312.00752):
b batch, d channel, l token, n state.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from model_core.ops.scan_inputs import ScanInputs


def scan_reference(inputs: ScanInputs) -> torch.Tensor:
    """Run the recurrence h ← exp(Δ A) h + Δ B u, y = C·h + D u, gated by silu(z), in float64."""
    u, delta, A, B, C = (x.double() for x in inputs.required())
    if inputs.delta_bias is not None:
        delta = delta + inputs.delta_bias.double()[None, :, None]
    if inputs.delta_softplus:
        delta = F.softplus(delta)
    B, C = (x.repeat_interleave(u.shape[1] // x.shape[1], dim=1) for x in (B, C))
    h = u.new_zeros(u.shape[0], u.shape[1], A.shape[1])
    outputs = []
    for t in range(u.shape[2]):
        dt = delta[:, :, t, None]
        h = torch.exp(dt * A) * h + dt * B[..., t] * u[:, :, t, None]
        outputs.append((h * C[..., t]).sum(-1))
    y = torch.stack(outputs, dim=-1)
    if inputs.D is not None:
        y = y + inputs.D.double()[None, :, None] * u
    if inputs.z is not None:
        y = y * F.silu(inputs.z.double())
    return y.to(inputs.u.dtype)
