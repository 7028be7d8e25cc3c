"""The arguments of one selective scan, checked once and in one layout for every backend."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model_core.errors import ShapeError


@dataclass(frozen=True, kw_only=True)
class ScanInputs:
    """Arguments of `model_core.ops.selective_scan`, valid once built by `check_inputs`.

    Shapes: ``u``, ``delta``, ``z`` (B, D, L); ``A`` (D, N); ``B``, ``C`` (B, G, N, L) with D a
    multiple of G; ``D``, ``delta_bias`` (D). Any strides.
    """

    u: torch.Tensor
    delta: torch.Tensor
    A: torch.Tensor
    B: torch.Tensor
    C: torch.Tensor
    D: torch.Tensor | None
    z: torch.Tensor | None
    delta_bias: torch.Tensor | None
    delta_softplus: bool

    def required(self) -> tuple[torch.Tensor, ...]:
        """The five tensors that are always there, in the order of the signature."""
        return self.u, self.delta, self.A, self.B, self.C


def check_inputs(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    *,
    optional: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None],
    delta_softplus: bool,
) -> ScanInputs:
    """Check every shape and bring B and C to (B, G, N, L); ``optional`` is (D, z, delta_bias).

    Raises:
        ShapeError: naming the argument, the shape it should have and the one it has.
    """
    D, z, delta_bias = optional
    if u.dim() != 3 or 0 in u.shape:
        raise _shape_error("u", "(batch, channels, length), none of them 0", u)
    batch, channels, length = u.shape
    if A.dim() != 2 or A.shape[0] != channels:
        raise _shape_error("A", f"({channels}, states)", A)
    expected: dict[str, tuple[tuple[int, ...], torch.Tensor | None]]
    expected = {"delta": (u.shape, delta), "z": (u.shape, z)}
    expected |= {"D": ((channels,), D), "delta_bias": ((channels,), delta_bias)}
    for name, (shape, tensor) in expected.items():
        if tensor is not None and tuple(tensor.shape) != tuple(shape):
            raise _shape_error(name, str(tuple(shape)), tensor)
    sizes = (batch, channels, A.shape[1], length)
    return ScanInputs(
        u=u,
        delta=delta,
        A=A,
        B=_grouped("B", B, sizes),
        C=_grouped("C", C, sizes),
        D=D,
        z=z,
        delta_bias=delta_bias,
        delta_softplus=delta_softplus,
    )


def _grouped(name: str, x: torch.Tensor, sizes: tuple[int, int, int, int]) -> torch.Tensor:
    batch, channels, states, length = sizes
    if tuple(x.shape) == (channels, states):  # constant in time: one group per channel
        return x[None, :, :, None].expand(batch, channels, states, length)
    if tuple(x.shape) == (batch, states, length):
        return x[:, None]
    fits = x.dim() == 4 and (x.shape[0], *x.shape[2:]) == (batch, states, length)
    if fits and channels % x.shape[1] == 0:
        return x
    rule = (
        f"({channels}, {states}), ({batch}, {states}, {length}) or ({batch}, G, {states}, {length})"
    )
    raise _shape_error(name, f"{rule} with {channels} a multiple of G", x)


def check_order(caller: str, order: torch.Tensor | None, length: int) -> None:
    """Check that an order has one index per token, each of them a token's.

    A kernel would read or write elsewhere otherwise. That no token comes twice is not checked.

    Raises:
        ShapeError: naming the shape or the range it should have and what it has.
    """
    if order is None:
        return
    if tuple(order.shape) != (length,):
        raise ShapeError(f"{caller}: order must be ({length},), got {tuple(order.shape)}.")
    check_range(caller, order, length)


def check_range(caller: str, order: torch.Tensor, length: int) -> None:
    """Check that every index is in [0, length), where the host can see it without waiting.

    Not while a graph is traced, which has no values, and not on a device, where reading would wait
    for all earlier work; orders there are those of `scan_order`.

    Raises:
        ShapeError: an index is outside.
    """
    if torch.compiler.is_compiling() or not length or order.device.type != "cpu":
        return
    low, high = (int(end) for end in torch.aminmax(order))
    if low < 0 or high >= length:
        raise ShapeError(
            f"{caller}: order must hold indices from 0 to {length - 1}, got {low} to {high}."
        )


def _shape_error(name: str, expected: str, got: torch.Tensor) -> ShapeError:
    return ShapeError(f"selective_scan: {name} must be {expected}, got {tuple(got.shape)}.")
