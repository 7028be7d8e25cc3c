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
CUDA_KERNELS: Final[tuple[Backend, ...]] = ("mamba-ssm", "triton")
"""Scans for CUDA tensors, best first; the rest of the work on a CPU has nothing to do with them."""

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
    name = requested or chosen_name()
    if not name:
        return best_backend(kind)
    backend = resolve_name(name)
    problem = _problem(backend, kind)
    if problem:
        raise BackendError(f"The scan backend {name!r} cannot run on {kind}: {problem}.")
    return backend


def native_beside_scan() -> bool:
    """Whether the native kernels do the work on CPU tensors that is no scan: norms, blending.

    They are chosen as for a scan, but a scan for CUDA leaves the choice to the CPU: a study on a
    GPU is partly read and added up in the host's memory.

    Raises:
        OptionError: the chosen backend's name is unknown.
        BackendError: the native kernels were chosen and are not here.
    """
    chosen = best_backend("cpu") if chosen_name() in CUDA_KERNELS else resolve_backend("cpu")
    return chosen == "native"


# torch.compile takes the answers as constants of the graph. This is all that
# torch.compiler.assume_constant_result does, besides importing the whole compiler.
for _asked in (resolve_backend, native_beside_scan):
    setattr(_asked, "_dynamo_marked_constant", True)  # noqa: B010 - unknown to mypy


def chosen_name() -> str | None:
    """The backend named by `use_backend` or the environment; empty or None where nobody did."""
    return _chosen.get() or os.environ.get(BACKEND_VARIABLE)


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


def best_backend(kind: str) -> Backend:
    """The best backend available for tensors on a device of this kind, whatever was chosen."""
    preferred: tuple[Backend, ...] = CUDA_KERNELS if kind == "cuda" else ("native",)
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
