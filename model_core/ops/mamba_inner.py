"""Everything between a Mamba block's in_proj and out_proj, for all its scan directions at once.

Per direction, with x and z the two halves of ``xz`` (Mamba, arXiv 2312.00752):

    x' = silu(causal_conv1d(x))      r, B, C = split(x_proj x')      Δ = softplus(dt_proj r + bias)
    y  = selective_scan(x', Δ, A, B, C, D) · silu(z)

and the results are summed over the directions. `mamba_inner_composed` says it with the operations
of this package and runs on any device; the native kernel does all of it in one walk over the
tokens, holds Δ in registers only, and writes nothing of length L but the result.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from torch.nn import functional as F

from model_core.errors import ShapeError
from model_core.ops.backends import resolve_backend
from model_core.ops.causal_conv import causal_conv1d
from model_core.ops.layout import call, kernels
from model_core.ops.operator import operator
from model_core.ops.scan import selective_scan
from model_core.ops.scan_inputs import check_range

_MAX_STATES: Final = 256
_MAX_WIDTH: Final = 16


class DirectionWeights(NamedTuple):
    """The parameters of one scan direction: D channels, N states, rank R, width K."""

    conv_weight: torch.Tensor
    """(D, K); tap K-1 meets the present token."""
    conv_bias: torch.Tensor
    """(D)."""
    x_proj: torch.Tensor
    """(R + 2N, D): the rows of r, then of B, then of C."""
    dt_proj: torch.Tensor
    """(D, R)."""
    dt_bias: torch.Tensor
    """(D), added before softplus."""
    A: torch.Tensor
    """(D, N) decay rates, negative in a trained Mamba."""
    D: torch.Tensor
    """(D) skip."""


def mamba_inner(
    xz: torch.Tensor,
    directions: Sequence[DirectionWeights],
    orders: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Convolve, project, scan and gate ``xz`` in every direction and sum: (B, L, 2D) → (B, L, D).

    Args:
        xz: the result of in_proj; the first D channels are scanned, the last D gate.
        directions: one set of weights per direction, all of the same sizes.
        orders: (directions, L) integers; row i, column t says which token the t-th one of
            direction i's sequence is. None scans every direction as the tokens lie.
        backend: as for `model_core.ops.selective_scan`; only ``native`` has a kernel for the
            whole, the others compose it.

    Returns:
        (B, L, D) in the dtype of ``xz``; work is float32 or wider.

    Raises:
        ShapeError: an argument does not fit.
        OptionError: the backend's name is unknown.
        BackendError: the backend cannot run here.
    """
    _check(xz, directions, orders)
    if resolve_backend(xz.device, backend) != "native" or _too_large(directions[0]):
        return mamba_inner_composed(xz, directions, orders, backend)
    weights = [torch.stack(part).float() for part in zip(*directions, strict=True)]
    tracked = torch.is_grad_enabled() and any(x.requires_grad for x in (xz, *weights))
    index = None if orders is None else orders.to(device="cpu", dtype=torch.int32)
    out: torch.Tensor = _mamba_inner(xz.float(), weights, index, tracked)[0]
    return out.to(xz.dtype)


def mamba_inner_composed(
    xz: torch.Tensor,
    directions: Sequence[DirectionWeights],
    orders: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """`mamba_inner` written with this package's operations; the truth the kernel is tested by."""
    work = torch.promote_types(xz.dtype, torch.float32)
    x, z = (half.transpose(1, 2) for half in xz.to(work).chunk(2, dim=-1))  # (B, D, L)
    outputs = [
        _one_direction(x, z, weights, None if orders is None else orders[i].long(), backend)
        for i, weights in enumerate(directions)
    ]
    return sum(outputs[1:], start=outputs[0]).transpose(1, 2).to(xz.dtype)


def _one_direction(
    x: torch.Tensor,
    z: torch.Tensor,
    weights: DirectionWeights,
    order: torch.Tensor | None,
    backend: str | None,
) -> torch.Tensor:
    weights = DirectionWeights(*(w.to(x.dtype) for w in weights))
    rank, states = weights.dt_proj.shape[1], weights.A.shape[1]
    x = causal_conv1d(
        x, weights.conv_weight, weights.conv_bias, silu=True, backend=backend, order=order
    )
    steps, B, C = torch.split(
        F.linear(x.transpose(1, 2), weights.x_proj), [rank, states, states], dim=-1
    )
    return selective_scan(
        x,
        F.linear(steps, weights.dt_proj).transpose(1, 2),  # the bias joins inside the scan
        weights.A,
        B.transpose(1, 2),
        C.transpose(1, 2),
        weights.D,
        z,
        weights.dt_bias,
        delta_softplus=True,
        backend=backend,
        order=order,
    )


def _check(
    xz: torch.Tensor, directions: Sequence[DirectionWeights], orders: torch.Tensor | None
) -> None:
    if xz.dim() != 3 or xz.shape[2] % 2 or not directions:
        raise ShapeError(
            f"mamba_inner: xz must be (batch, length, 2 · channels) with at least one direction, "
            f"got {tuple(xz.shape)} and {len(directions)}."
        )
    channels, length = xz.shape[2] // 2, xz.shape[1]
    width, states = directions[0].conv_weight.shape[-1], directions[0].A.shape[-1]
    rank = directions[0].dt_proj.shape[-1]
    expected = DirectionWeights._make(  # type: ignore[call-arg, unused-ignore]
        (
            (channels, width),
            (channels,),
            (rank + 2 * states, channels),
            (channels, rank),
            (channels,),
            (channels, states),
            (channels,),
        )
    )
    for weights in directions:
        for name, shape, tensor in zip(weights._fields, expected, weights, strict=True):
            if tuple(tensor.shape) != shape:
                raise ShapeError(f"mamba_inner: {name} must be {shape}, got {tuple(tensor.shape)}.")
    if orders is None:
        return
    if tuple(orders.shape) != (len(directions), length):
        raise ShapeError(
            f"mamba_inner: orders must be ({len(directions)}, {length}), got {tuple(orders.shape)}."
        )
    check_range("mamba_inner", orders, length)


def _too_large(weights: DirectionWeights) -> bool:
    return weights.A.shape[1] > _MAX_STATES or weights.conv_weight.shape[1] > _MAX_WIDTH


_OPERANDS: Final = ("xz", *DirectionWeights._fields)
_STEPS: Final = DirectionWeights._fields.index("dt_proj")
_RATES: Final = DirectionWeights._fields.index("A")


class _Arguments(ctypes.Structure):
    """Mirror of ``MambaArguments`` in mamba_inner.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "length", "channels", "states")),
        *((name, ctypes.c_int64) for name in ("rank", "width", "directions", "threads")),
        *((name, ctypes.c_void_p) for name in ("xz", "conv_weight", "conv_bias", "x_proj")),
        *((name, ctypes.c_void_p) for name in ("dt_proj", "dt_bias", "A", "D", "orders")),
        *((name, ctypes.c_void_p) for name in ("out", "chunk_states", "dout")),
        *((name, ctypes.c_void_p) for name in ("dxz", "dconv_weight", "dconv_bias", "dx_proj")),
        *((name, ctypes.c_void_p) for name in ("ddt_proj", "ddt_bias", "dA", "dD")),
    )


@operator("mamba_inner")
def _mamba_inner(
    xz: torch.Tensor, weights: list[torch.Tensor], orders: torch.Tensor | None, keep: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernel, on float32: ``weights`` are those of `DirectionWeights`, stacked.

    Also returns the kept states, which the backward pass starts from; none if not asked to keep.
    """
    rates = weights[_RATES]
    out = xz.new_empty(*xz.shape[:2], rates.shape[1])
    states = xz.new_empty(_states_shape(xz, rates) if keep else (0,))
    operands = _Operands(xz, weights, orders)
    operands.arguments.out = out.data_ptr()
    operands.arguments.chunk_states = states.data_ptr() if keep else None
    call("segmamba_mamba_forward", operands.arguments)
    return out, states


@_mamba_inner.register_fake
def _(
    xz: torch.Tensor, weights: list[torch.Tensor], _orders: torch.Tensor | None, keep: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    rates = weights[_RATES]
    states = _states_shape(xz, rates) if keep else (0,)
    return xz.new_empty(*xz.shape[:2], rates.shape[1]), xz.new_empty(states)


@operator("mamba_inner_backward")
def _mamba_inner_backward(
    dout: torch.Tensor,
    states: torch.Tensor,
    xz: torch.Tensor,
    weights: list[torch.Tensor],
    orders: torch.Tensor | None,
) -> list[torch.Tensor]:
    """The gradients by ``xz`` and each of ``weights``, from the states that forward kept."""
    dout, states = dout.contiguous(), states.contiguous()
    gradients = [_empty(x) for x in (xz, *weights)]
    operands = _Operands(xz, weights, orders)
    arguments = operands.arguments
    arguments.dout, arguments.chunk_states = dout.data_ptr(), states.data_ptr()
    for name, gradient in zip(_OPERANDS, gradients, strict=True):
        setattr(arguments, f"d{name}", gradient.data_ptr())
    call("segmamba_mamba_backward", arguments)
    return gradients


@_mamba_inner_backward.register_fake
def _(
    _dout: torch.Tensor,
    _states: torch.Tensor,
    xz: torch.Tensor,
    weights: list[torch.Tensor],
    _orders: torch.Tensor | None,
) -> list[torch.Tensor]:
    return [_empty(x) for x in (xz, *weights)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    xz, weights, orders, keep = inputs
    assert keep, "gradients need the kept states"
    ctx.save_for_backward(output[1], xz, orders, *weights)
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, dout: torch.Tensor | None, _: torch.Tensor | None
) -> tuple[torch.Tensor | None, list[torch.Tensor | None], None, None]:
    states, xz, orders, *weights = ctx.saved_tensors
    if dout is None:
        return None, [None] * len(weights), None, None
    dxz, *gradients = _mamba_inner_backward(dout, states, xz, weights, orders)
    return dxz, gradients, None, None


_mamba_inner.register_autograd(_differentiate, setup_context=_save)


def _empty(like: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def _states_shape(xz: torch.Tensor, A: torch.Tensor) -> tuple[int, ...]:
    """(directions, B, chunks, D, N); the layout inside a chunk is the kernel's own affair."""
    chunks = -(-xz.shape[1] // int(kernels().segmamba_chunk()))
    return A.shape[0], xz.shape[0], chunks, *A.shape[1:]


class _Operands:
    """What a kernel is called with; holds the tensors that the arguments point into."""

    def __init__(
        self, xz: torch.Tensor, weights: list[torch.Tensor], orders: torch.Tensor | None
    ) -> None:
        self._tensors = [x.contiguous() for x in (xz, *weights)]
        self._orders = None if orders is None else orders.contiguous()
        self.arguments = arguments = _Arguments(batch=xz.shape[0], length=xz.shape[1])
        arguments.directions, arguments.channels, arguments.states = weights[_RATES].shape
        arguments.width, arguments.rank = weights[0].shape[2], weights[_STEPS].shape[2]
        arguments.threads = torch.get_num_threads()
        for name, tensor in zip(_OPERANDS, self._tensors, strict=True):
            setattr(arguments, name, tensor.data_ptr())
        arguments.orders = None if self._orders is None else self._orders.data_ptr()
