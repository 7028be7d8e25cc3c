"""The selective scans that are compared, all called alike and all computing the same.

Signature: ``scan(u, delta, A, B, C, D, z, delta_bias)`` with u, delta, z (batch, D, L), A (D, N),
B and C (batch, N, L), D and delta_bias (D): softplus, scan, skip and gate, float32 throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from model_core.ops import selective_scan

PSCAN_CHUNK: Final = 8192
"""Tokens that mambapy's scan is given at once: its arrays hold L·D·N numbers each, and smaller
ones stay nearer to the processor."""
SEQUENTIAL_PIECE: Final = 4096
"""Tokens whose decays are computed ahead of the loop; mamba-ssm's function does so for all of them,
which does not fit in memory for a full-resolution volume."""


def has_mambapy() -> bool:
    """Whether mambapy is installed (benchmarks/setup.sh)."""
    return find_spec("mambapy") is not None


def native(*tensors: Tensor) -> Tensor:
    """This project's C++ kernel."""
    return _selective_scan(tensors, "native")


def torch_blocked(*tensors: Tensor) -> Tensor:
    """This project's fallback in plain PyTorch, lent to the authors' networks."""
    return _selective_scan(tensors, "torch")


def _selective_scan(tensors: tuple[Tensor, ...], backend: str) -> Tensor:
    u, delta, A, B, C, D, z, bias = tensors
    return selective_scan(u, delta, A, B, C, D, z, bias, delta_softplus=True, backend=backend)


def pscan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> Tensor:
    """The parallel scan of mambapy, with everything around it as in its ``MambaBlock.ssm``.

    It starts from a zero state, so a sequence is cut into chunks, and the state h that a chunk
    ends with enters the next through its first token, whose input grows by a·h: exact, and free.
    """
    return pscan_chunks(u, delta, A, B, C, D, z, bias, chunk=PSCAN_CHUNK)


def pscan_whole(*tensors: Tensor) -> Tensor:
    """`pscan` without chunks, as mambapy does it: arrays of batch·L·D·N numbers each."""
    return pscan_chunks(*tensors, chunk=tensors[0].shape[-1])


def pscan_chunks(*tensors: Tensor, chunk: int) -> Tensor:
    """`pscan` in chunks of so many tokens; the tensors are those of every scan here."""
    peer: Any = import_module("mambapy.pscan")
    u, delta, A, B, C, D, z, bias = tensors
    u, delta, B, C, z = (x.transpose(1, 2) for x in (u, delta, B, C, z))  # (batch, L, D or N)
    delta = F.softplus(delta + bias)
    outputs = []
    state: Tensor | None = None
    for start in range(0, u.shape[1], chunk):
        part = slice(start, start + chunk)
        decay = torch.exp(delta[:, part, :, None] * A)  # (batch, L, D, N)
        drive = delta[:, part, :, None] * B[:, part, None] * u[:, part, :, None]
        if state is not None:
            first = drive[:, :1] + decay[:, :1] * state
            drive = torch.cat([first, drive[:, 1:]], dim=1)
        hidden = peer.pscan(decay, drive)
        state = hidden[:, -1:]
        outputs.append((hidden @ C[:, part, :, None]).squeeze(3))
    y = torch.cat(outputs, dim=1) + D * u
    return (y * F.silu(z)).transpose(1, 2)


@dataclass
class Sequential:
    """The algorithm of mamba-ssm's ``selective_scan_ref``: decays first, then token after token.

    Args:
        limit: with a limit, only so many tokens of each sequence are walked and the time of the
            others is added to `unmeasured`; their outputs are zero.
    """

    limit: int | None = None
    unmeasured: float = 0.0

    def __call__(
        self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: Tensor
    ) -> Tensor:
        """Scan, or scan the beginning and scale its time."""
        D, z, bias = rest
        length = u.shape[-1]
        walked = min(length, self.limit or length)
        part = (x[..., :walked] for x in (u, delta, B, C))
        began = perf_counter()
        y = _walk(*part, A=A, bias=bias)
        self.unmeasured += (perf_counter() - began) * (length / walked - 1)
        y = F.pad(y, (0, length - walked)) + D[:, None] * u
        return y * F.silu(z)


def _walk(u: Tensor, delta: Tensor, B: Tensor, C: Tensor, *, A: Tensor, bias: Tensor) -> Tensor:
    delta = F.softplus(delta + bias[:, None])
    state = u.new_zeros(*u.shape[:2], A.shape[1])
    outputs = []
    for start in range(0, u.shape[-1], SEQUENTIAL_PIECE):
        part = slice(start, start + SEQUENTIAL_PIECE)
        dt, B_part, C_part = delta[..., part], B[..., part], C[..., part]
        decay = torch.exp(torch.einsum("bdl,dn->bdln", dt, A))
        drive = torch.einsum("bdl,bnl,bdl->bdln", dt, B_part, u[..., part])
        for t in range(decay.shape[2]):
            state = decay[:, :, t] * state + drive[:, :, t]
            outputs.append(torch.einsum("bdn,bn->bd", state, C_part[..., t]))
    return torch.stack(outputs, dim=-1)
