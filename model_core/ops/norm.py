"""Instance norm and group norm, fused with the residual and the activation around them.

SegMamba normalises after nearly every convolution; on a CPU these norms cost as much as the
convolutions themselves unless mean, variance, scaling, residual and activation share their passes
over memory. The native kernels do that for channels-last float32 and bfloat16, forward and
backward; everything else goes to PyTorch.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from model_core.ops.backends import native_beside_scan
from model_core.ops.layout import call
from model_core.ops.operator import operator

EPSILON: Final = 1e-5
_DTYPES: Final = (torch.float32, torch.bfloat16)
_NONE, _BEFORE, _AFTER = range(3)
"""Where the residual is added: nowhere, before the activation, after it (``Residual`` in C++)."""


def instance_norm(
    x: Tensor,
    slope: float = 1.0,
    *,
    residual: Tensor | None = None,
    residual_after: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Normalise each image and channel of ``x`` (B, C, *spatial), add, then apply LeakyReLU.

    Args:
        x: any float dtype; statistics are float32 or wider.
        slope: what negative values are multiplied by, 0 or more: 1 keeps them (no activation),
            0 is ReLU.
        residual: added to the normalised values before the activation; the shape of ``x``, whose
            dtype it is brought to.
        residual_after: add it to the activation's result instead.
        inplace: permission to write the result over ``x``; used where autograd does not need it.

    Returns:
        The shape and dtype of ``x``; variance is the biased one, ε = 1e-5, as in PyTorch.
    """
    return _normalise(
        x, x.shape[1], None, None, slope, residual, after=residual_after, inplace=inplace
    )


def group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    slope: float = 1.0,
    *,
    residual: Tensor | None = None,
    residual_after: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Normalise ``groups`` equal groups of channels of each image, scale, shift, add, activate.

    Args:
        x: (B, C, *spatial), C a multiple of ``groups``.
        groups: how many groups share one mean and variance each.
        weight: (C) scales, or None for ones.
        bias: (C) shifts, or None for zeros.
        slope: as in `instance_norm`.
        residual: as in `instance_norm`.
        residual_after: as in `instance_norm`.
        inplace: as in `instance_norm`.

    Returns:
        The shape and dtype of ``x``.
    """
    return _normalise(
        x, groups, weight, bias, slope, residual, after=residual_after, inplace=inplace
    )


def _normalise(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    slope: float,
    residual: Tensor | None,
    *,
    after: bool,
    inplace: bool,
) -> Tensor:
    residual = None if residual is None else residual.to(x.dtype)
    if not _native_takes(x, residual):
        return _with_pytorch(x, groups, weight, bias, slope, residual, after)
    weight, bias = (None if p is None else p.float().contiguous() for p in (weight, bias))
    residual_at = _NONE if residual is None else _AFTER if after else _BEFORE
    if inplace and not _autograd_needs(x, residual, weight, bias):
        _norm_(x, residual, weight, bias, groups, slope, residual_at)
        return x
    y: Tensor = _norm(x, residual, weight, bias, groups, slope, residual_at)[0]
    return y


def _native_takes(x: Tensor, residual: Tensor | None) -> bool:
    if x.dtype not in _DTYPES or x.device.type != "cpu" or not x.numel():
        return False
    return (
        _is_channels_last(x)
        and (residual is None or (residual.shape == x.shape and _is_channels_last(residual)))
        and native_beside_scan()
    )


def _autograd_needs(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() > 2 and x.movedim(1, -1).is_contiguous()


def _empty(x: Tensor) -> Tensor:
    """A new channels-last tensor of the shape and dtype of ``x``, whatever its sides of 1."""
    return torch.empty_like(x.movedim(1, -1), memory_format=torch.contiguous_format).movedim(-1, 1)


def _with_pytorch(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    slope: float,
    residual: Tensor | None,
    after: bool,
) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    weight, bias = (None if p is None else p.to(wide.dtype) for p in (weight, bias))
    planar = x.device.type == "cpu" and not x.is_contiguous()
    with torch.autocast(x.device.type, enabled=False):
        # On a CPU, PyTorch sums channels-last maps one float after another and loses four digits
        # of a large map, and every digit beside a large mean.
        y = F.group_norm(wide.contiguous() if planar else wide, groups, weight, bias, EPSILON)
    y = torch.empty_like(wide).copy_(y) if planar else y
    if residual is not None and not after:
        y = y + residual
    y = y if slope == 1.0 else F.leaky_relu(y, slope)
    y = y if residual is None or not after else residual + y
    return y.to(x.dtype)


class _NormArguments(ctypes.Structure):
    """Mirror of ``NormArguments`` in norm.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "voxels", "channels", "groups")),
        *((name, ctypes.c_void_p) for name in ("x", "residual", "dy", "y", "dx", "dresidual")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "mean", "rstd")),
        *((name, ctypes.c_void_p) for name in ("dweight", "dbias")),
        *((name, ctypes.c_float) for name in ("eps", "slope")),
        *((name, ctypes.c_int32) for name in ("bfloat16", "mode", "threads")),
    )


@operator("norm")
def _norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    groups: int,
    slope: float,
    residual_at: int,
) -> tuple[Tensor, Tensor]:
    """Give y and the statistics, float64 (2, B, groups): mean and 1/deviation."""
    y, statistics = _results(x, groups)
    _forward(x, y, statistics, residual, weight, bias, slope, residual_at)
    return y, statistics


@_norm.register_fake
def _norm_fake(
    x: Tensor,
    _residual: Tensor | None,
    _weight: Tensor | None,
    _bias: Tensor | None,
    groups: int,
    _slope: float,
    _residual_at: int,
) -> tuple[Tensor, Tensor]:
    return _results(x, groups)


def _results(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    return _empty(x), x.new_empty(2, x.shape[0], groups, dtype=torch.float64)


@operator("norm_", changes=("x",))
def _norm_(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    groups: int,
    slope: float,
    residual_at: int,
) -> None:
    """Write y over x."""
    statistics = torch.empty(2, x.shape[0], groups, dtype=torch.float64)
    _forward(x, x, statistics, residual, weight, bias, slope, residual_at)


@operator("norm_backward")
def _norm_backward(
    dy: Tensor,
    x: Tensor,
    y: Tensor | None,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    slope: float,
    residual_at: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give the gradients of x, residual, weight and bias; empty where there is nothing to say.

    ``y`` is needed where the residual came before the activation. A residual that came after it
    has the gradient ``dy``.
    """
    dx, dresidual, dweight, dbias = _gradients_for(x, weight, bias, residual_at)
    arguments = _arguments(x, statistics, weight, bias, slope, residual_at)
    arguments.dy, arguments.y = dy.data_ptr(), _pointer(y)
    arguments.dx, arguments.dresidual = dx.data_ptr(), _pointer(dresidual)
    arguments.dweight, arguments.dbias = _pointer(dweight), _pointer(dbias)
    call("segmamba_norm_backward", arguments)
    return dx, dresidual, dweight, dbias


@_norm_backward.register_fake
def _norm_backward_fake(
    _dy: Tensor,
    x: Tensor,
    _y: Tensor | None,
    _statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    _slope: float,
    residual_at: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _gradients_for(x, weight, bias, residual_at)


def _gradients_for(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual_at: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def zeros(parameter: Tensor | None) -> Tensor:
        return x.new_empty(0) if parameter is None else torch.zeros_like(parameter)

    dresidual = _empty(x) if residual_at == _BEFORE else x.new_empty(0)
    return _empty(x), dresidual, zeros(weight), zeros(bias)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, _, weight, bias, _, slope, residual_at = inputs
    y, statistics = output
    ctx.mark_non_differentiable(statistics)
    ctx.save_for_backward(x, y if residual_at == _BEFORE else None, statistics, weight, bias)
    ctx.slope, ctx.residual_at = slope, residual_at


def _gradients(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, y, statistics, weight, bias = ctx.saved_tensors
    if dy.dtype != x.dtype or not _is_channels_last(dy):
        dy = _empty(x).copy_(dy)
    dx, dresidual, dweight, dbias = _norm_backward(
        dy, x, y, statistics, weight, bias, ctx.slope, ctx.residual_at
    )
    return (
        dx,
        {_NONE: None, _BEFORE: dresidual, _AFTER: dy}[ctx.residual_at],
        None if weight is None else dweight,
        None if bias is None else dbias,
        *(None, None, None),
    )


_norm.register_autograd(_gradients, setup_context=_remember)


def _forward(
    x: Tensor,
    y: Tensor,
    statistics: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    slope: float,
    residual_at: int,
) -> None:
    arguments = _arguments(x, statistics, weight, bias, slope, residual_at)
    arguments.y, arguments.residual = y.data_ptr(), _pointer(residual)
    call("segmamba_norm_forward", arguments)


def _arguments(
    x: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    slope: float,
    residual_at: int,
) -> _NormArguments:
    return _NormArguments(
        batch=x.shape[0],
        voxels=x[0, 0].numel(),
        channels=x.shape[1],
        groups=statistics.shape[2],
        x=x.data_ptr(),
        weight=_pointer(weight),
        bias=_pointer(bias),
        mean=statistics[0].data_ptr(),
        rstd=statistics[1].data_ptr(),
        eps=EPSILON,
        slope=slope,
        bfloat16=int(x.dtype == torch.bfloat16),
        mode=residual_at,
        threads=torch.get_num_threads(),
    )


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None or not x.numel() else x.data_ptr()
