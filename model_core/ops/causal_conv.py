"""The short causal depthwise convolution that stands before every selective scan.

The native kernel is PyTorch's operator ``segmamba::causal_conv1d``, with its gradient.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch.nn import functional as F

from model_core.errors import ShapeError
from model_core.ops.backends import resolve_backend
from model_core.ops.layout import (
    View,
    call,
    dense,
    empty_as,
    pointer,
    refuse_second_derivative,
    rows,
    settle,
    target_rows,
    view,
)
from model_core.ops.operator import operator
from model_core.ops.order import inverse_order
from model_core.ops.scan_inputs import check_order

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
        ShapeError: weight or bias does not fit the channels, or order the tokens.
    """
    channels = x.shape[1]
    if weight.dim() != 2 or weight.shape[0] != channels:
        raise ShapeError(
            f"causal_conv1d: weight must be ({channels}, K), got {tuple(weight.shape)}."
        )
    if bias is not None and tuple(bias.shape) != (channels,):
        raise ShapeError(f"causal_conv1d: bias must be ({channels},), got {tuple(bias.shape)}.")
    check_order("causal_conv1d", order, x.shape[2])
    chosen = resolve_backend(x.device, backend)
    if chosen == "native" and weight.shape[1] <= _MAX_NATIVE_WIDTH:
        out: torch.Tensor = _conv(x, weight, bias, silu, order)
        return out
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


class _Arguments(ctypes.Structure):
    """Mirror of ``ConvArguments`` in causal_conv.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "length", "channels", "width")),
        *((name, View) for name in ("x", "out")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "order")),
        *((name, ctypes.c_int32) for name in ("silu", "threads")),
        *((name, View) for name in ("dout", "dx")),
        *((name, ctypes.c_void_p) for name in ("dweight", "dbias")),
    )


@operator("causal_conv1d")
def _conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    silu: bool,
    order: torch.Tensor | None,
) -> torch.Tensor:
    out = empty_as(x)
    written = target_rows(out)
    arguments, _alive = _arguments(x, weight, bias, silu, order)
    arguments.out = view(written)
    call("segmamba_conv_forward", arguments)
    settle(written, out)
    return out.to(x.dtype)


@_conv.register_fake
def _(
    x: torch.Tensor,
    weight: torch.Tensor,  # noqa: ARG001 - the operator's signature
    bias: torch.Tensor | None,  # noqa: ARG001
    silu: bool,  # noqa: ARG001
    order: torch.Tensor | None,  # noqa: ARG001
) -> torch.Tensor:
    return empty_as(x).to(x.dtype)


@operator("causal_conv1d_backward")
def _conv_backward(
    dout: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    silu: bool,
    order: torch.Tensor | None,
) -> list[torch.Tensor]:
    """The gradients of x, weight and bias; that of an absent bias is empty."""
    batch, channels, _ = x.shape
    dx, d_weight, d_sum = _gradients(x, weight, bias)
    arguments, _alive = _arguments(x, weight, bias, silu, order)
    grad, d_rows = rows(dout), target_rows(dx).zero_()
    d_taps = x.new_zeros(batch, weight.shape[1], channels, dtype=torch.float32)
    d_bias = x.new_zeros(batch, channels, dtype=torch.float32)
    arguments.dout, arguments.dx = view(grad), view(d_rows)
    arguments.dweight, arguments.dbias = pointer(d_taps), pointer(d_bias)
    call("segmamba_conv_backward", arguments)
    settle(d_rows, dx)
    d_weight.copy_(d_taps.sum(0).t())
    if bias is not None:
        d_sum.copy_(d_bias.sum(0))
    return _typed((dx, d_weight, d_sum), (x, weight, bias))


@_conv_backward.register_fake
def _(
    dout: torch.Tensor,  # noqa: ARG001 - the operator's signature
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    silu: bool,  # noqa: ARG001
    order: torch.Tensor | None,  # noqa: ARG001
) -> list[torch.Tensor]:
    return _typed(_gradients(x, weight, bias), (x, weight, bias))


def _gradients(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unwritten float32 memory for the gradients, empty for an absent bias."""
    d_weight = x.new_empty(weight.shape, dtype=torch.float32)
    d_bias = x.new_empty(0 if bias is None else bias.shape[0], dtype=torch.float32)
    return empty_as(x), d_weight, d_bias


def _typed(
    gradients: tuple[torch.Tensor, ...], arguments: tuple[torch.Tensor | None, ...]
) -> list[torch.Tensor]:
    """Each gradient in the dtype of its argument."""
    return [g if x is None else g.to(x.dtype) for g, x in zip(gradients, arguments, strict=True)]


def _arguments(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    silu: bool,
    order: torch.Tensor | None,
) -> tuple[_Arguments, list[Any]]:
    """The kernel's arguments, and what must be kept alive until it has returned."""
    index = None if order is None else order.to(device="cpu", dtype=torch.int32).contiguous()
    mine, bias = rows(x), dense(bias)
    taps = dense(weight.t())  # (K, D): one vector per tap
    arguments = _Arguments(batch=mine.shape[0], length=mine.shape[1], channels=mine.shape[2])
    arguments.width, arguments.silu = taps.shape[0], int(silu)
    arguments.threads = torch.get_num_threads()
    arguments.x = view(mine)
    arguments.weight, arguments.bias, arguments.order = map(pointer, (taps, bias, index))
    return arguments, [mine, taps, bias, index]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:  # noqa: ARG001
    x, weight, bias, silu, order = inputs
    ctx.save_for_backward(x, weight, bias, order)
    ctx.silu = silu


def _backward(ctx: Any, dout: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, weight, bias, order = ctx.saved_tensors
    dx, d_weight, d_bias = _conv_backward(dout, x, weight, bias, ctx.silu, order)
    return dx, d_weight, None if bias is None else d_bias, None, None


_conv.register_autograd(_backward, setup_context=_setup_context)
_conv_backward.register_autograd(refuse_second_derivative)
