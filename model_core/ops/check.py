"""A quick proof that a scan backend runs here and computes the right thing, both ways."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model_core.errors import SegMambaError
from model_core.ops.backends import resolve_backend
from model_core.ops.native_library import native_build
from model_core.ops.scan import selective_scan

_TOLERANCE = 1e-4
"""Largest relative error (L2) against the float64 reference; float32 rounding is near 1e-6."""
_TOKENS = 410
_INTERPRETED_TOKENS = 70
"""For Triton's interpreter on a CPU, which takes milliseconds for each."""


@dataclass(frozen=True, kw_only=True)
class BackendCheck:
    """What running a backend forward and backward on a small problem has shown."""

    backend: str
    passed: bool
    forward_error: float
    backward_error: float
    problem: str
    build: str = ""
    """The instruction-set level of the library that ran, e.g. ``"v4"``; of ``native`` only."""


def check_backend(name: str, device: str = "cpu") -> BackendCheck:
    """Run ``name`` forward and backward against the reference; never raises for a bad backend."""
    try:
        backend = resolve_backend(device, name)
        tokens = _INTERPRETED_TOKENS if backend == "triton" and device == "cpu" else _TOKENS
        got = _results(backend, device, tokens)
    except (SegMambaError, RuntimeError, OSError) as error:
        return BackendCheck(
            backend=name,
            passed=False,
            forward_error=1.0,
            backward_error=1.0,
            problem=str(error),
            build=_build(name),
        )
    forward, backward = (
        _relative(a, b) for a, b in zip(got, _results("reference", device, tokens), strict=True)
    )
    passed = max(forward, backward) < _TOLERANCE
    problem = "" if passed else "its results differ from the reference"
    return BackendCheck(
        backend=name,
        passed=passed,
        forward_error=forward,
        backward_error=backward,
        problem=problem,
        build=_build(backend),
    )


def _build(backend: str) -> str:
    return native_build() if backend == "native" else ""


def _results(backend: str, device: str, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and the gradient of its sum of squares by u, on a fixed small problem.

    Neither size is a multiple of any vector, and there are enough tokens for several chunks.
    """
    draw = torch.Generator().manual_seed(0)
    u, delta, z = (torch.randn(1, 27, tokens, generator=draw).to(device) for _ in range(3))
    B, C = (torch.randn(1, 16, tokens, generator=draw).to(device) for _ in range(2))
    A = -torch.rand(27, 16, generator=draw).to(device) * 4
    u.requires_grad_()
    out = selective_scan(u, delta, A, B, C, None, z, None, True, backend)
    (grad,) = torch.autograd.grad(out.square().sum(), u)
    return out.detach(), grad


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())
