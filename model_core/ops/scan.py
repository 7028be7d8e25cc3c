"""The one entry to the selective scan (Mamba, arXiv 2312.00752, Algorithm 2), whatever runs it."""

from __future__ import annotations

import torch

from model_core.ops.backends import Backend, resolve_backend
from model_core.ops.order import inverse_order
from model_core.ops.scan_inputs import ScanInputs, check_inputs, check_order
from model_core.ops.scan_mamba_ssm import scan_mamba_ssm
from model_core.ops.scan_native import scan_native
from model_core.ops.scan_reference import scan_reference
from model_core.ops.scan_torch import scan_torch
from model_core.ops.scan_triton import scan_triton


def selective_scan(  # noqa: PLR0913 - the signature of mamba-ssm's selective_scan_fn
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    backend: str | None = None,
    *,
    order: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scan a sequence: h_t = exp(Δ_t A) h_(t-1) + Δ_t B_t u_t, y_t = C_t·h_t + D u_t.

    Args:
        u: input, (B, D, L).
        delta: step sizes Δ before bias and softplus, (B, D, L).
        A: decay rates, (D, N), negative in a trained Mamba.
        B: input projection, (B, N, L), (B, G, N, L) with D a multiple of G, or (D, N).
        C: output projection, shaped like one of B's forms.
        D: skip, (D).
        z: gate, (B, D, L): the result is multiplied by silu(z).
        delta_bias: added to ``delta``, (D).
        delta_softplus: pass ``delta + delta_bias`` through softplus.
        backend: ``mamba-ssm``, ``triton``, ``native``, ``torch`` or ``reference``; None chooses.
        order: (L) indices; the t-th token of the scanned sequence is token ``order[t]`` of every
            argument, and of the result. None scans as it lies.

    Returns:
        (B, D, L) in the dtype of ``u``; the state is float32 or wider inside.

    Raises:
        ShapeError: an argument does not fit.
        OptionError: the backend's name is unknown.
        BackendError: the backend cannot run here.
    """
    inputs = check_inputs(
        u, delta, A, B, C, optional=(D, z, delta_bias), delta_softplus=delta_softplus
    )
    check_order("selective_scan", order, u.shape[2])
    return _run(resolve_backend(u.device, backend), inputs, order)


def _run(backend: Backend, inputs: ScanInputs, order: torch.Tensor | None) -> torch.Tensor:
    if backend == "native":
        return scan_native(inputs, order)
    if backend == "triton":
        return scan_triton(inputs, order)
    if order is not None:
        order = order.to(inputs.u.device)
        return _run(backend, _ordered(inputs, order), None)[..., inverse_order(order)]
    if backend == "mamba-ssm":
        return scan_mamba_ssm(inputs)
    return scan_torch(inputs) if backend == "torch" else scan_reference(inputs)


def _ordered(inputs: ScanInputs, order: torch.Tensor) -> ScanInputs:
    """The same scan with its tokens laid out in scanning order."""
    return ScanInputs(
        u=inputs.u[..., order],
        delta=inputs.delta[..., order],
        A=inputs.A,
        B=inputs.B[..., order],
        C=inputs.C[..., order],
        D=inputs.D,
        z=None if inputs.z is None else inputs.z[..., order],
        delta_bias=inputs.delta_bias,
        delta_softplus=inputs.delta_softplus,
    )
