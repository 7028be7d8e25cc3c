"""Prove that mamba-ssm's compiled CUDA kernel runs, forward and backward, and is right.

An import that succeeds proves nothing: packages of that name exist without the kernel, with a slow
stand-in, or built for another torch. So four things are looked at, in this order: a CUDA device,
a module ``selective_scan_cuda`` that is compiled code, that *this module* was called once each way,
and its result and eight gradients beside this project's float64 reference.

    python scripts/gpu/verify_true_mamba.py

Exit codes: 0 the real kernel is active · 1 what runs is not the kernel, or is wrong · 2 nothing to
verify here (no GPU, not installed).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

import torch
from torch import Tensor

from model_core.ops.scan import selective_scan
from model_core.ops.scan_mamba_ssm import mamba_ssm_function

Scan = Callable[..., Any]
"""With the signature of ``mamba_ssm.ops.selective_scan_interface.selective_scan_fn``."""

SUCCESS: Final = "SUCCESS: Real mamba-ssm CUDA extension is active."
INSTALL: Final = "scripts/gpu/enable_true_mamba.sh builds it; --dry-run shows the commands."
TOLERANCE: Final = 1e-3
"""Relative error (L2). mamba-ssm's own tests allow 6e-4 an element in float32."""
SHAPE: Final = (2, 40, 16, 259)
"""Batch, channels, states, tokens; the tokens are no multiple of a block of the kernel."""


@dataclass
class Calls:
    """How often the compiled module was entered."""

    fwd: int = 0
    bwd: int = 0


@dataclass(frozen=True)
class Verdict:
    """What was found. ``code`` is the exit code."""

    code: int
    lines: tuple[str, ...]
    errors: dict[str, float] = field(default_factory=dict)


def verify(scan: Scan, kernel: ModuleType, device: str) -> Verdict:
    """Run `scan` on `device` forward and backward, watch `kernel`, compare with the reference.

    Args:
        scan: mamba-ssm's function.
        kernel: the module ``selective_scan_cuda`` that it must call.
        device: where the tensors lie.
    """
    if not is_compiled(kernel):
        return Verdict(1, (f"{kernel.__name__} is Python, not a compiled extension. {INSTALL}",))
    calls = Calls()
    undo = _watch(kernel, calls)
    try:
        got = _run(scan, device)
    except RuntimeError as error:
        return Verdict(1, (f"The kernel does not run: {_first_line(error)}", INSTALL))
    finally:
        undo()
    if not (calls.fwd and calls.bwd):
        entered = f"entered {calls.fwd} times forward and {calls.bwd} times backward"
        return Verdict(1, (f"{kernel.__name__} was {entered}: another scan ran in its place.",))
    return _judge(got, _run(_reference, device))


def is_compiled(module: ModuleType) -> bool:
    """Whether a module was loaded from a shared library."""
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    return isinstance(loader, importlib.machinery.ExtensionFileLoader)


def main() -> int:
    """Verify this machine, speak on stdout, and return the exit code."""
    verdict = _examine()
    sys.stdout.write("\n".join(verdict.lines) + "\n")
    return verdict.code


def _examine() -> Verdict:
    """The verdict on this machine, or what is missing for one."""
    sys.stdout.write(f"torch {torch.__version__}, CUDA of torch: {torch.version.cuda or 'none'}\n")
    if not torch.cuda.is_available():
        return Verdict(2, ("No CUDA device is visible to torch: segmamba doctor says why.",))
    scan, problem = mamba_ssm_function()
    if scan is None:
        return Verdict(2, (f"mamba-ssm is {problem}.", INSTALL))
    sys.stdout.write(f"device: {torch.cuda.get_device_name(0)}\n")
    return verify(scan, importlib.import_module("selective_scan_cuda"), "cuda")


def _watch(kernel: ModuleType, calls: Calls) -> Callable[[], None]:
    """Count the calls into a compiled module; what is returned takes the counters out again."""
    original = {name: getattr(kernel, name) for name in ("fwd", "bwd")}

    def counted(name: str) -> Scan:
        def call(*args: Any, **kwargs: Any) -> Any:
            setattr(calls, name, getattr(calls, name) + 1)
            return original[name](*args, **kwargs)

        return call

    def undo() -> None:
        for name, function in original.items():
            setattr(kernel, name, function)

    for name in original:
        setattr(kernel, name, counted(name))
    return undo


def _run(scan: Scan, device: str) -> dict[str, Tensor]:
    """The output and the gradient of its sum of squares by every argument."""
    arguments = {name: x.to(device).requires_grad_() for name, x in _problem().items()}
    out = scan(**arguments, delta_softplus=True)
    grads = torch.autograd.grad(out.square().sum(), list(arguments.values()))
    return {"output": out.detach(), **dict(zip(arguments, grads, strict=True))}


def _problem() -> dict[str, Tensor]:
    """Fixed arguments in mamba-ssm's layout: contiguous tokens, float32."""
    batch, channels, states, tokens = SHAPE
    draw = torch.Generator().manual_seed(0)
    sizes = {"u": 0, "delta": 0, "B": 1, "C": 1, "z": 0}
    shapes = ((batch, channels, tokens), (batch, states, tokens))
    made = {name: torch.randn(shapes[kind], generator=draw) for name, kind in sizes.items()}
    made["A"] = -torch.rand(channels, states, generator=draw) * 4
    made["D"] = torch.randn(channels, generator=draw)
    made["delta_bias"] = torch.randn(channels, generator=draw)
    return made


def _reference(**arguments: Any) -> Tensor:
    return selective_scan(**arguments, backend="reference")


def _judge(got: dict[str, Tensor], true: dict[str, Tensor]) -> Verdict:
    errors = {name: float((got[name] - t).norm() / t.norm()) for name, t in true.items()}
    table = tuple(f"  {name:<11} relative error {error:.1e}" for name, error in errors.items())
    # written so that NaN, which compares false with everything, fails
    wrong = [name for name, error in errors.items() if not error < TOLERANCE]
    last = f"FAILURE: the kernel ran and is wrong in: {', '.join(wrong)}." if wrong else SUCCESS
    return Verdict(1 if wrong else 0, (*table, last), errors)


def _first_line(error: RuntimeError) -> str:
    return (str(error).splitlines() or ["no reason given"])[0]


if __name__ == "__main__":
    sys.exit(main())
