"""The short causal depthwise convolution that stands before every selective scan."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from model_core.errors import ShapeError
from model_core.ops.backends import resolve_backend
from model_core.ops.order import inverse_order
from model_core.ops.scan_native import conv_native

_MAX_NATIVE_WIDTH = 16


def causal_conv1d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    silu: bool = False,
    backend: str | None = None,
    order: torch.Tensor | None = None,
) -> torch.Tensor:
    """Convolve each channel over its own past: y_t = bias + Σ_k weight_k x_(t-K+1+k).

    Args:
        x: (B, D, L).
        weight: (D, K); tap K-1 meets the present token.
        bias: (D).
        silu: pass the result through SiLU, as causal-conv1d's ``activation="silu"``.
        backend: as for `model_core.ops.selective_scan`; only ``native`` has a kernel of its own,
            the others use PyTorch's convolution.
        order: (L) indices of the scanned sequence, as for the scan.

    Returns:
        (B, D, L) in the dtype of ``x``.

    Raises:
        ShapeError: weight or bias does not fit the channels.
    """
    channels = x.shape[1]
    if weight.dim() != 2 or weight.shape[0] != channels:
        raise ShapeError(
            f"causal_conv1d: weight must be ({channels}, K), got {tuple(weight.shape)}."
        )
    if bias is not None and tuple(bias.shape) != (channels,):
        raise ShapeError(f"causal_conv1d: bias must be ({channels},), got {tuple(bias.shape)}.")
    chosen = resolve_backend(x.device, backend)
    if chosen == "native" and weight.shape[1] <= _MAX_NATIVE_WIDTH:
        return conv_native(x, weight, bias, silu, order)
    return _conv_torch(x, weight, bias, silu, order)


def _conv_torch(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    silu: bool,
    order: torch.Tensor | None,
) -> torch.Tensor:
    if order is not None:
        order = order.to(x.device)
        y = _conv_torch(x[..., order], weight, bias, silu, None)
        return y[..., inverse_order(order)]
    width = weight.shape[1]
    weight = weight.to(x.dtype)
    bias = None if bias is None else bias.to(x.dtype)
    y = F.conv1d(x, weight[:, None], bias, padding=width - 1, groups=x.shape[1])[..., : x.shape[2]]
    return F.silu(y) if silu else y
