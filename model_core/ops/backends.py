"""Which implementation of the scan runs: known names, what is available, and who decides.

Order of decision: the ``backend`` argument, then `use_backend`, then the environment variable
``SEGMAMBA_SCAN_BACKEND``, then the best one available for the tensor's device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal, get_args

import torch

from model_core.errors import BackendError, OptionError
from model_core.ops.native_library import native_library, native_problem
from model_core.ops.scan_mamba_ssm import mamba_ssm_function
from model_core.ops.scan_triton import triton_problem

Backend = Literal["mamba-ssm", "triton", "native", "torch", "reference"]
BACKENDS: Final[tuple[Backend, ...]] = get_args(Backend)
BACKEND_VARIABLE: Final = "SEGMAMBA_SCAN_BACKEND"

_chosen: ContextVar[Backend | None] = ContextVar("chosen_scan_backend", default=None)


def available_backends() -> Mapping[Backend, str]:
    """Every backend with ``"available"`` or the reason why it is not, best first."""
    _, mamba_problem = mamba_ssm_function()
    cuda = torch.cuda.is_available()
    if not cuda:
        mamba_problem = mamba_problem or "installed, but no CUDA device is visible"
    return {
        "mamba-ssm": mamba_problem or "available",
        "triton": triton_problem("cuda" if cuda else "cpu") or "available",
        "native": "available" if native_library() else native_problem(),
        "torch": "available",
        "reference": "available",
    }


def resolve_backend(device: torch.device | str, requested: str | None = None) -> Backend:
    """Return the backend that will run for tensors on ``device``.

    Raises:
        OptionError: the requested name is unknown.
        BackendError: the requested backend cannot run on this device or installation.
    """
    kind = torch.device(device).type
    name = requested or _chosen.get() or os.environ.get(BACKEND_VARIABLE)
    if not name:
        return _best(kind)
    backend = resolve_name(name)
    problem = _problem(backend, kind)
    if problem:
        raise BackendError(f"The scan backend {name!r} cannot run on {kind}: {problem}.")
    return backend


# torch.compile takes the answer as a constant of the graph. This is all that
# torch.compiler.assume_constant_result does, besides importing the whole compiler.
setattr(resolve_backend, "_dynamo_marked_constant", True)  # noqa: B010 - unknown to mypy


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Choose the backend for every scan inside the block; None leaves the choice as it is."""
    token = _chosen.set(resolve_name(name) if name else _chosen.get())
    try:
        yield
    finally:
        _chosen.reset(token)


def resolve_name(name: str) -> Backend:
    """Return ``name`` as a known backend; raise `OptionError` otherwise."""
    for backend in BACKENDS:
        if backend == name:
            return backend
    raise OptionError(
        "backend",
        expected=f"one of {', '.join(BACKENDS)}",
        got=repr(name),
        way_out=f"Leave it out (and {BACKEND_VARIABLE} unset) to take the best available.",
    )


def _best(kind: str) -> Backend:
    preferred: tuple[Backend, ...] = ("mamba-ssm", "triton") if kind == "cuda" else ("native",)
    return next((name for name in preferred if not _problem(name, kind)), "torch")


def _problem(backend: Backend, kind: str) -> str:
    """Why ``backend`` cannot serve tensors on a device of this kind; empty when it can."""
    if backend == "mamba-ssm":
        return "it needs CUDA tensors" if kind != "cuda" else mamba_ssm_function()[1]
    if backend == "triton":
        return triton_problem(kind)
    if backend == "native":
        return "it needs CPU tensors" if kind != "cpu" else native_problem()
    return ""
