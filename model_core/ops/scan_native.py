"""The selective scan in our own C++ kernels, as an operator of PyTorch with its gradient.

``segmamba::selective_scan`` is opaque to torch.compile and torch.export, which know its result
from its fake kernel. Work is float32 whatever comes in; how tensors reach the kernels stands in
`model_core.ops.layout`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch

from model_core.errors import BackendError
from model_core.ops.layout import (
    Scratch,
    View,
    call,
    dense,
    empty_as,
    kernels,
    pointer,
    refuse_second_derivative,
    rows,
    settle,
    target_rows,
    tokens_first,
    view,
)
from model_core.ops.operator import operator
from model_core.ops.scan_inputs import ScanInputs

_MAX_STATES: Final = 256
_TILE_BYTES: Final = 2**25
"""Scratch for one transposed tensor; more channels than that holds are scanned part by part."""


class _Arguments(ctypes.Structure):
    """Mirror of ``ScanArguments`` in selective_scan.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "length", "channels", "states")),
        *((name, View) for name in ("u", "delta", "z", "B", "C", "out")),
        *((name, ctypes.c_void_p) for name in ("A", "D", "bias", "order", "chunk_states")),
        *((name, ctypes.c_int32) for name in ("softplus", "threads")),
        *((name, View) for name in ("dout", "du", "ddelta", "dz", "dB", "dC")),
        *((name, ctypes.c_void_p) for name in ("dA", "dD", "dbias")),
    )


def scan_native(inputs: ScanInputs, order: torch.Tensor | None = None) -> torch.Tensor:
    """Run the scan on the CPU; ``order`` (L) says where the t-th token of the sequence lies.

    Raises:
        BackendError: the kernels are not built, N exceeds 256, or memory ran out.
    """
    if inputs.A.shape[1] > _MAX_STATES:
        raise BackendError(
            f"The native scan takes up to {_MAX_STATES} states, got {inputs.A.shape[1]}. "
            f"Use backend='torch'."
        )
    operands = (*inputs.required(), inputs.D, inputs.z, inputs.delta_bias)
    tracked = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in operands)
    out: torch.Tensor = _scan(*operands, inputs.delta_softplus, order, tracked)[0]
    return out


@operator("selective_scan")
def _scan(  # noqa: PLR0913 - the operands of one recurrence
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    delta_bias: torch.Tensor | None,
    delta_softplus: bool,
    order: torch.Tensor | None,
    keep: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """u, delta, z (B, D, L); B, C (B, G, N, L). Also the states the gradient needs, if to keep."""
    index = _index(order)
    out = empty_as(u)
    states = u.new_empty(_kept(u, A) if keep else 0, dtype=torch.float32)
    projections, scratch = _projections(B, C), Scratch()
    for piece in _pieces(u, B.shape[1]):
        arguments, _alive = _arguments(
            piece,
            (u, delta, z),
            projections[piece.group],
            (A, D, delta_bias),
            (delta_softplus, index),
            scratch,
        )
        written = target_rows(out[:, piece.channels], scratch, "out")
        arguments.out = view(written)
        arguments.chunk_states = pointer(_share(states, u, piece)) if keep else None
        call("segmamba_scan_forward", arguments)
        settle(written, out[:, piece.channels])
    return out.to(u.dtype), states


@_scan.register_fake
def _(  # noqa: PLR0913
    u: torch.Tensor,
    delta: torch.Tensor,  # noqa: ARG001 - the operator's signature
    A: torch.Tensor,
    B: torch.Tensor,  # noqa: ARG001
    C: torch.Tensor,  # noqa: ARG001
    D: torch.Tensor | None,  # noqa: ARG001
    z: torch.Tensor | None,  # noqa: ARG001
    delta_bias: torch.Tensor | None,  # noqa: ARG001
    delta_softplus: bool,  # noqa: ARG001
    order: torch.Tensor | None,  # noqa: ARG001
    keep: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    states = u.new_empty(_kept(u, A) if keep else 0, dtype=torch.float32)
    return empty_as(u).to(u.dtype), states


@operator("selective_scan_backward")
def _scan_backward(  # noqa: PLR0913
    dout: torch.Tensor,
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    delta_bias: torch.Tensor | None,
    delta_softplus: bool,
    order: torch.Tensor | None,
    states: torch.Tensor,
) -> list[torch.Tensor]:
    """The gradients of u, delta, A, B, C, D, z, delta_bias; empty for those that are None."""
    index = _index(order)
    found = _Gradients.empty(u, delta, A, B, D, z, delta_bias)
    found.B.zero_()
    found.C.zero_()
    projections, scratch = _projections(B, C), Scratch()
    for piece in _pieces(u, B.shape[1]):
        arguments, _alive = _arguments(
            piece,
            (u, delta, z),
            projections[piece.group],
            (A, D, delta_bias),
            (delta_softplus, index),
            scratch,
        )
        grad = rows(dout[:, piece.channels], scratch, "dout")
        arguments.dout = view(grad)
        arguments.chunk_states = pointer(_share(states, u, piece))
        _differentiate(arguments, piece, found, scratch)
    return found.as_results((u, delta, A, B, C, D, z, delta_bias))


@_scan_backward.register_fake
def _(  # noqa: PLR0913
    dout: torch.Tensor,  # noqa: ARG001 - the operator's signature
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    z: torch.Tensor | None,
    delta_bias: torch.Tensor | None,
    delta_softplus: bool,  # noqa: ARG001
    order: torch.Tensor | None,  # noqa: ARG001
    states: torch.Tensor,  # noqa: ARG001
) -> list[torch.Tensor]:
    found = _Gradients.empty(u, delta, A, B, D, z, delta_bias)
    return found.as_results((u, delta, A, B, C, D, z, delta_bias))


class _Gradients(NamedTuple):
    """Float32 gradients of a whole scan; u, delta, z (B, D, L), A (D, N), B and C (G, B, L, N)."""

    u: torch.Tensor
    delta: torch.Tensor
    A: torch.Tensor
    B: torch.Tensor
    C: torch.Tensor
    D: torch.Tensor
    z: torch.Tensor
    delta_bias: torch.Tensor

    @classmethod
    def empty(
        cls,
        u: torch.Tensor,
        delta: torch.Tensor,
        A: torch.Tensor,
        B: torch.Tensor,
        D: torch.Tensor | None,
        z: torch.Tensor | None,
        delta_bias: torch.Tensor | None,
    ) -> _Gradients:
        """Unwritten memory for each; nothing for an optional argument that is not there."""

        def new(*shape: int) -> torch.Tensor:
            return u.new_empty(shape, dtype=torch.float32)

        batch, groups, states, length = B.shape
        return cls(
            empty_as(u),
            empty_as(delta),
            new(*A.shape),
            new(groups, batch, length, states),
            new(groups, batch, length, states),
            new(0 if D is None else A.shape[0]),
            new(0) if z is None else empty_as(z),
            new(0 if delta_bias is None else A.shape[0]),
        )

    def as_results(self, arguments: tuple[torch.Tensor | None, ...]) -> list[torch.Tensor]:
        """Shaped and typed like the arguments they belong to."""
        shaped = self._replace(B=self.B.permute(1, 0, 3, 2), C=self.C.permute(1, 0, 3, 2))
        return [
            gradient if argument is None else gradient.to(argument.dtype)
            for gradient, argument in zip(shaped, arguments, strict=True)
        ]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    *tensors, softplus, order, _ = inputs
    ctx.save_for_backward(*tensors, order, output[1])
    ctx.softplus = softplus
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, dout: torch.Tensor | None, _states: torch.Tensor | None
) -> tuple[torch.Tensor | None, ...]:
    *tensors, order, states = ctx.saved_tensors
    if dout is None:
        return (None,) * 11
    if not states.numel():
        raise BackendError(
            "segmamba::selective_scan was called with keep=False, so it has no gradient. "
            "Call model_core.ops.selective_scan, which keeps the states when they are needed."
        )
    found = _scan_backward(dout, *tensors, ctx.softplus, order, states)
    gradients = (None if x is None else g for x, g in zip(tensors, found, strict=True))
    return (*gradients, None, None, None)


_scan.register_autograd(_backward, setup_context=_setup_context)
_scan_backward.register_autograd(refuse_second_derivative)


class _Piece(NamedTuple):
    """Channels that are scanned in one call; they share one B and one C."""

    channels: slice
    group: int


def _pieces(u: torch.Tensor, groups: int) -> Iterator[_Piece]:
    """Whole groups, or parts of them where transposed copies would take much memory.

    A part leaves every thread 16 channels, the widest vector.
    """
    batch, channels, length = u.shape
    size = channels // groups
    if tokens_first(u):
        part = size
    else:
        fitting = _TILE_BYTES // (4 * batch * length)
        part = max(16 * torch.get_num_threads(), fitting // 16 * 16)
    for group in range(groups):
        for start in range(group * size, (group + 1) * size, part):
            yield _Piece(slice(start, min(start + part, (group + 1) * size)), group)


def _projections(B: torch.Tensor, C: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The rows of B and C, group by group."""
    return [(rows(B[:, g]), rows(C[:, g])) for g in range(B.shape[1])]


def _arguments(
    piece: _Piece,
    sequences: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
    projections: tuple[torch.Tensor, torch.Tensor],
    parameters: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None],
    mode: tuple[bool, torch.Tensor | None],
    scratch: Scratch,
) -> tuple[_Arguments, list[Any]]:
    """One piece's arguments, and what must be kept alive until the kernel has returned.

    ``sequences`` is (u, delta, z), ``projections`` the rows of (B, C), ``parameters``
    (A, D, delta_bias), ``mode`` (delta_softplus, order).
    """
    mine, (softplus, index) = piece.channels, mode
    u, delta, z = (
        None if x is None else rows(x[:, mine], scratch, name)
        for name, x in zip(("u", "delta", "z"), sequences, strict=True)
    )
    A, D, bias = (None if x is None else dense(x[mine]) for x in parameters)
    assert u is not None
    assert A is not None
    arguments = _Arguments(batch=u.shape[0], length=u.shape[1], channels=u.shape[2])
    arguments.states, arguments.softplus = A.shape[1], int(softplus)
    arguments.threads = torch.get_num_threads()
    arguments.u, arguments.delta, arguments.z = view(u), view(delta), view(z)
    arguments.B, arguments.C = map(view, projections)
    arguments.A, arguments.D, arguments.bias = map(pointer, (A, D, bias))
    arguments.order = pointer(index)
    return arguments, [u, delta, z, *projections, A, D, bias, index]


def _differentiate(
    arguments: _Arguments, piece: _Piece, found: _Gradients, scratch: Scratch
) -> None:
    """Run the backward kernel on one piece and bring its results to their places."""
    mine = piece.channels
    outs = {"du": found.u[:, mine], "ddelta": found.delta[:, mine]}
    if found.z.numel():
        outs["dz"] = found.z[:, mine]
    written = {name: target_rows(out, scratch, name) for name, out in outs.items()}
    for name, target in written.items():
        setattr(arguments, name, view(target))
    arguments.dB, arguments.dC = view(found.B[piece.group]), view(found.C[piece.group])
    # One row for each batch item: they are worked on side by side.
    per_channel = found.A.new_empty(2, arguments.batch, arguments.channels)
    dD, dbias = per_channel
    dA = found.A.new_empty(arguments.batch, arguments.channels, arguments.states)
    arguments.dA, arguments.dD, arguments.dbias = map(pointer, (dA, dD, dbias))
    call("segmamba_scan_backward", arguments)
    for name, out in outs.items():
        settle(written[name], out)
    found.A[mine] = dA.sum(0)
    for whole, part in ((found.D, dD), (found.delta_bias, dbias)):
        if whole.numel():
            whole[mine] = part.sum(0)


def _index(order: torch.Tensor | None) -> torch.Tensor | None:
    return None if order is None else order.to(device="cpu", dtype=torch.int32).contiguous()


def _kept(u: torch.Tensor, A: torch.Tensor) -> int:
    """How many values the states before all chunks are; their layout is the kernel's affair."""
    chunks = -(-u.shape[2] // int(kernels().segmamba_chunk()))
    return u.shape[0] * chunks * A.shape[0] * A.shape[1]


def _share(states: torch.Tensor, u: torch.Tensor, piece: _Piece) -> torch.Tensor:
    """The part of the kept states that belongs to a piece."""
    per_channel = states.numel() // u.shape[1]
    return states[piece.channels.start * per_channel : piece.channels.stop * per_channel]
