"""The selective scan and the causal convolution in our own C++ kernels, with autograd.

The kernels read token-major memory: (B, L, D) with contiguous channels. The (B, D, L) views that
`model_core.networks.mamba` hands over are exactly that under a transpose, so nothing is copied;
any other layout is copied once. Work is float32 whatever comes in.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from model_core.errors import BackendError
from model_core.ops.native_library import native_library, native_problem
from model_core.ops.scan_inputs import ScanInputs

_MAX_STATES = 256


class _View(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("batch", ctypes.c_int64), ("row", ctypes.c_int64))


class _ScanArguments(ctypes.Structure):
    """Mirror of ``ScanArguments`` in selective_scan.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "length", "channels", "states")),
        *((name, _View) for name in ("u", "delta", "z", "B", "C", "out")),
        *((name, ctypes.c_void_p) for name in ("A", "D", "bias", "order", "chunk_states")),
        *((name, ctypes.c_int32) for name in ("softplus", "threads")),
        *((name, _View) for name in ("dout", "du", "ddelta", "dz", "dB", "dC")),
        *((name, ctypes.c_void_p) for name in ("dA", "dD", "dbias")),
    )


class _ConvArguments(ctypes.Structure):
    """Mirror of ``ConvArguments`` in selective_scan.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "length", "channels", "width")),
        *((name, _View) for name in ("x", "out")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "order")),
        *((name, ctypes.c_int32) for name in ("silu", "threads")),
        *((name, _View) for name in ("dout", "dx")),
        *((name, ctypes.c_void_p) for name in ("dweight", "dbias")),
    )


def scan_native(inputs: ScanInputs, order: torch.Tensor | None = None) -> torch.Tensor:
    """Run the scan on the CPU; ``order`` (L) says where the t-th token of the sequence lies.

    Raises:
        BackendError: the kernels are not built, or N exceeds 256.
    """
    if inputs.A.shape[1] > _MAX_STATES:
        raise BackendError(
            f"The native scan takes up to {_MAX_STATES} states, got {inputs.A.shape[1]}. "
            f"Use backend='torch'."
        )
    groups = inputs.B.shape[1]
    parts = [_scan_group(inputs, group, groups, order) for group in range(groups)]
    return (parts[0] if groups == 1 else torch.cat(parts, dim=1)).to(inputs.u.dtype)


def _scan_group(
    inputs: ScanInputs, group: int, groups: int, order: torch.Tensor | None
) -> torch.Tensor:
    """Scan the channels that share one B and one C."""
    size = inputs.u.shape[1] // groups
    mine = slice(group * size, (group + 1) * size)

    def rows(x: torch.Tensor | None) -> torch.Tensor | None:
        return None if x is None else x[:, mine].transpose(1, 2)

    def per_channel(x: torch.Tensor | None) -> torch.Tensor | None:
        return None if x is None else x[mine]

    out: torch.Tensor = _Scan.apply(  # type: ignore[no-untyped-call]
        rows(inputs.u),
        rows(inputs.delta),
        inputs.A[mine],
        inputs.B[:, group].transpose(1, 2),
        inputs.C[:, group].transpose(1, 2),
        per_channel(inputs.D),
        rows(inputs.z),
        per_channel(inputs.delta_bias),
        inputs.delta_softplus,
        order,
    )
    return out.transpose(1, 2)


class _Scan(torch.autograd.Function):
    """Token-major scan: u, delta, z (B, L, D); B, C (B, L, N); A (D, N)."""

    @staticmethod
    def forward(  # noqa: PLR0913 - the operands of one recurrence
        ctx: Any,
        u: torch.Tensor,
        delta: torch.Tensor,
        A: torch.Tensor,
        B: torch.Tensor,
        C: torch.Tensor,
        D: torch.Tensor | None,
        z: torch.Tensor | None,
        bias: torch.Tensor | None,
        softplus: bool,
        order: torch.Tensor | None,
    ) -> torch.Tensor:
        u, delta, B, C, z = (_rows(x) for x in (u, delta, B, C, z))
        A, D, bias = (_dense(x) for x in (A, D, bias))
        index = None if order is None else order.to(torch.int32).contiguous()
        out = torch.empty(u.shape, dtype=torch.float32)
        states = None
        if any(ctx.needs_input_grad):
            states = torch.empty(u.shape[0], _chunks(u.shape[1]), *A.shape)
        arguments = _scan_arguments(u, delta, A, B, C, (D, z, bias), softplus, index)
        arguments.out, arguments.chunk_states = _view(out), _pointer(states)
        _call("segmamba_scan_forward", arguments)
        ctx.save_for_backward(u, delta, A, B, C, D, z, bias, index, states)
        ctx.softplus = softplus
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        u, delta, A, B, C, D, z, bias, index, states = ctx.saved_tensors
        dout = _rows(grads[0])
        arguments = _scan_arguments(u, delta, A, B, C, (D, z, bias), ctx.softplus, index)
        arguments.dout, arguments.chunk_states = _view(dout), _pointer(states)
        du, ddelta = torch.empty(u.shape), torch.empty(u.shape)
        dz = None if z is None else torch.empty(u.shape)
        dB, dC = torch.zeros(B.shape), torch.zeros(C.shape)
        dA = torch.empty(u.shape[0], *A.shape)
        dD, dbias = torch.empty(u.shape[0], A.shape[0]), torch.empty(u.shape[0], A.shape[0])
        arguments.du, arguments.ddelta, arguments.dz = _view(du), _view(ddelta), _view(dz)
        arguments.dB, arguments.dC = _view(dB), _view(dC)
        arguments.dA, arguments.dD, arguments.dbias = map(_pointer, (dA, dD, dbias))
        _call("segmamba_scan_backward", arguments)
        return (
            du,
            ddelta,
            dA.sum(0),
            dB,
            dC,
            None if D is None else dD.sum(0),
            dz,
            None if bias is None else dbias.sum(0),
            None,
            None,
        )


def conv_native(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    silu: bool,
    order: torch.Tensor | None = None,
) -> torch.Tensor:
    """Causal depthwise convolution of ``x`` (B, D, L) with ``weight`` (D, K); same shape out."""
    out: torch.Tensor = _Conv.apply(x.transpose(1, 2), weight, bias, silu, order)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).to(x.dtype)


class _Conv(torch.autograd.Function):
    """Token-major convolution: x (B, L, D), weight (D, K), bias (D)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        silu: bool,
        order: torch.Tensor | None,
    ) -> torch.Tensor:
        x, bias = _rows(x), _dense(bias)
        taps = _dense(weight.t())  # (K, D): one vector per tap
        index = None if order is None else order.to(torch.int32).contiguous()
        out = torch.empty(x.shape, dtype=torch.float32)
        arguments = _conv_arguments(x, taps, bias, silu, index)
        arguments.out = _view(out)
        _call("segmamba_conv_forward", arguments)
        ctx.save_for_backward(x, taps, bias, index)
        ctx.silu = silu
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, taps, bias, index = ctx.saved_tensors
        dout, dx = _rows(grads[0]), torch.zeros(x.shape)
        dtaps, dbias = torch.zeros(x.shape[0], *taps.shape), torch.zeros(x.shape[0], x.shape[2])
        arguments = _conv_arguments(x, taps, bias, ctx.silu, index)
        arguments.dout, arguments.dx = _view(dout), _view(dx)
        arguments.dweight, arguments.dbias = _pointer(dtaps), _pointer(dbias)
        _call("segmamba_conv_backward", arguments)
        return dx, dtaps.sum(0).t(), None if bias is None else dbias.sum(0), None, None


def _scan_arguments(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    optional: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None],
    softplus: bool,
    index: torch.Tensor | None,
) -> _ScanArguments:
    D, z, bias = optional
    arguments = _ScanArguments(batch=u.shape[0], length=u.shape[1], channels=u.shape[2])
    arguments.states, arguments.softplus = A.shape[1], int(softplus)
    arguments.threads = torch.get_num_threads()
    arguments.u, arguments.delta, arguments.z = _view(u), _view(delta), _view(z)
    arguments.B, arguments.C = _view(B), _view(C)
    arguments.A, arguments.D, arguments.bias = _pointer(A), _pointer(D), _pointer(bias)
    arguments.order = _pointer(index)
    return arguments


def _conv_arguments(
    x: torch.Tensor,
    taps: torch.Tensor,
    bias: torch.Tensor | None,
    silu: bool,
    index: torch.Tensor | None,
) -> _ConvArguments:
    arguments = _ConvArguments(batch=x.shape[0], length=x.shape[1], channels=x.shape[2])
    arguments.width, arguments.silu = taps.shape[0], int(silu)
    arguments.threads = torch.get_num_threads()
    arguments.x = _view(x)
    arguments.weight, arguments.bias, arguments.order = map(_pointer, (taps, bias, index))
    return arguments


def _rows(x: torch.Tensor | None) -> Any:
    """The tensor as float32 with contiguous channels, copied only if it is not so already."""
    if x is None:
        return None
    x = x.float()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _dense(x: torch.Tensor | None) -> Any:
    return None if x is None else x.float().contiguous()


def _view(x: torch.Tensor | None) -> _View:
    return _View() if x is None else _View(x.data_ptr(), x.stride(0), x.stride(1))


def _pointer(x: torch.Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _library() -> ctypes.CDLL:
    library = native_library()
    if library is None:
        raise BackendError(f"The native scan is {native_problem()}. Use backend='torch'.")
    return library


def _chunks(length: int) -> int:
    return -(-length // int(_library().segmamba_chunk()))


def _call(function: str, arguments: ctypes.Structure) -> None:
    status = getattr(_library(), function)(ctypes.byref(arguments))
    assert status == 0, f"{function} refused arguments that were checked before"
