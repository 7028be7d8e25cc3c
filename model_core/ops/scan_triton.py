"""The selective scan in Triton: compiled when it first runs on a GPU, with its gradient.

``segmamba::selective_scan_triton`` is PyTorch's operator for it, opaque to torch.compile and
torch.export. Triton is imported only when a scan runs, or a GPU asks whether it can. On a CPU it
runs in Triton's interpreter alone, slowly, to be compared with the other backends.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any, Final

import torch
from packaging.version import Version

from model_core.errors import BackendError
from model_core.ops.operator import operator
from model_core.ops.scan_inputs import ScanInputs
from model_core.ops.scan_triton_plan import Operands, plan

INTERPRET_VARIABLE: Final = "TRITON_INTERPRET"
"""Triton's own variable; it counts only if set before Triton is imported."""
_OLDEST: Final = 75
"""Compute capability times ten of the oldest GPU that the kernels were compiled for."""
_FIRST: Final = Version("3.7")
"""The Triton that torch 2.13 brings; an older one has not been tried."""
_INSTALL: Final = "on Linux: pip install 'segmamba-service[triton]'"
_NO_START: Final = (
    RuntimeError,
    OSError,
    ImportError,
    AssertionError,  # Triton's own, where the loader's cache lists no libcuda.so.1
    subprocess.SubprocessError,
)
"""What Triton raises where it finds no driver, no compiler or no headers."""


def scan_triton(inputs: ScanInputs, order: torch.Tensor | None = None) -> torch.Tensor:
    """Run the scan; ``order`` (L) says where the t-th token of the sequence lies.

    Work is float32; tensors of any strides are read and written in place, fastest where channels
    lie side by side.

    Raises:
        BackendError: Triton refuses a kernel, or N exceeds 256. Whether it can run at all is asked
            beforehand, `triton_problem`.
    """
    if order is not None:
        order = order.to(device=inputs.u.device, dtype=torch.int32).contiguous()
    operands = (*inputs.required(), inputs.D, inputs.z, inputs.delta_bias)
    out: torch.Tensor = _scan(*operands, inputs.delta_softplus, order)[0]
    return out


def triton_problem(kind: str) -> str:
    """Why the Triton scan cannot serve tensors on a device of this kind; empty when it can."""
    if kind not in ("cuda", "cpu"):
        return "it needs CUDA tensors"
    interpreted = os.environ.get(INTERPRET_VARIABLE, "").lower() in ("1", "true", "on", "yes", "y")
    if kind == "cpu" and not interpreted:
        return f"it needs CUDA tensors; {INTERPRET_VARIABLE}=1 interprets it on a CPU, slowly"
    return _import_problem() or ("" if interpreted else _gpu_problem())


@lru_cache(maxsize=1)
def _import_problem() -> str:
    try:
        import triton
    except ImportError:
        return f"Triton is not installed; {_INSTALL}"
    if Version(triton.__version__) < _FIRST:
        return f"Triton {triton.__version__} is older than {_FIRST}; {_INSTALL}"
    return ""


@lru_cache(maxsize=1)
def _gpu_problem() -> str:
    """Ask Triton for the GPU, which makes it compile the few lines of C that launch kernels."""
    import triton

    try:
        target = triton.runtime.driver.active.get_current_target()
    except _NO_START as error:
        return (
            f"Triton cannot start: {_first_line(error)} (it needs an NVIDIA driver, a C compiler "
            "and, once, Python's headers; Debian: apt-get install gcc python3-dev)"
        )
    if target.backend != "cuda" or target.arch < _OLDEST:
        return f"it needs an NVIDIA GPU from sm_{_OLDEST} on, got {target.backend} {target.arch}"
    return ""


@operator("selective_scan_triton", devices=("CPU", "CUDA"))
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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shapes as in `ScanInputs`. Also the states and the sums of Δ that the gradient needs."""
    from model_core.ops.scan_triton_launch import forward

    operands = _operands(u, delta, A, B, C, D, z, delta_bias, delta_softplus, order)
    out = torch.empty_like(operands.u)
    with _launching_for(u):
        kept = forward(operands, out)
    return out.to(u.dtype), *kept


@_scan.register_fake
def _(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    u, A, B = arguments[0], arguments[2], arguments[3]
    how = plan(u, A, B.shape[1])
    sizes = how.sizes
    starts = how.table(u, sizes.chunks, how.states, sizes.channels)
    return torch.empty_like(u), starts, how.table(u, sizes.chunks, sizes.channels)


@operator("selective_scan_triton_backward", devices=("CPU", "CUDA"))
def _scan_backward(  # noqa: PLR0913
    dout: torch.Tensor,
    starts: torch.Tensor,
    sums: torch.Tensor,
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
) -> list[torch.Tensor]:
    """The gradients of u, delta, A, B, C, D, z, delta_bias; empty for those that are None."""
    from model_core.ops.scan_triton_launch import backward

    operands = _operands(u, delta, A, B, C, D, z, delta_bias, delta_softplus, order)
    du, ddelta = torch.empty_like(operands.u), torch.empty_like(operands.delta)
    dz = None if operands.z is None else torch.empty_like(operands.z)
    with _launching_for(u):
        found = backward(operands, _narrow(dout), (starts, sums), (du, ddelta, dz))
    dB, dC = found.B.transpose(2, 3), found.C.transpose(2, 3)
    gradients = (du, ddelta, found.A, dB, dC, found.D, dz, found.delta_bias)
    arguments = (u, delta, A, B, C, D, z, delta_bias)
    return [
        u.new_empty(0) if x is None or gradient is None else gradient.to(x.dtype)
        for x, gradient in zip(arguments, gradients, strict=True)
    ]


@_scan_backward.register_fake
def _(*arguments: Any) -> list[torch.Tensor]:
    u, delta, A, B, C, D, z, delta_bias = arguments[3:11]

    def as_projection(x: torch.Tensor) -> torch.Tensor:
        batch, groups, states, length = x.shape
        return x.new_empty(batch, groups, length, states).transpose(2, 3)

    return [
        *(torch.empty_like(x) for x in (u, delta)),
        A.new_empty(A.shape),
        *(as_projection(x) for x in (B, C)),
        u.new_empty(0) if D is None else D.new_empty(D.shape),
        u.new_empty(0) if z is None else torch.empty_like(z),
        u.new_empty(0) if delta_bias is None else delta_bias.new_empty(delta_bias.shape),
    ]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    *tensors, softplus, order = inputs
    ctx.save_for_backward(*output[1:], *tensors, order)
    ctx.softplus = softplus
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, dout: torch.Tensor | None, *_: torch.Tensor | None
) -> tuple[torch.Tensor | None, ...]:
    starts, sums, *tensors, order = ctx.saved_tensors
    if dout is None:
        return (None,) * 10
    found = _scan_backward(dout, starts, sums, *tensors, ctx.softplus, order)
    gradients = (None if x is None else g for x, g in zip(tensors, found, strict=True))
    return (*gradients, None, None)


def _refuse(*_: Any) -> Any:
    raise BackendError(
        "The Triton scan has no second derivative. Use backend='reference', which has all."
    )


_scan.register_autograd(_differentiate, setup_context=_save)
_scan_backward.register_autograd(_refuse)


def _operands(*arguments: Any) -> Operands:
    """The arguments without float64, which the kernels do not work in."""
    *tensors, softplus, order = arguments
    return Operands._make((*map(_narrow, tensors), softplus, order))


def _narrow(x: Any) -> Any:
    return x.float() if x is not None and x.dtype == torch.float64 else x


@contextmanager
def _launching_for(x: torch.Tensor) -> Iterator[None]:
    """Launch on the tensor's device, which need not be the current one.

    Raises:
        BackendError: Triton cannot compile or run a kernel.
    """
    from triton.errors import TritonError

    try:
        with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
            yield
    except TritonError as error:
        raise BackendError(
            f"The Triton scan cannot run here: {_first_line(error)} Use backend='torch'."
        ) from error


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
