"""The selective scan through mamba-ssm's CUDA kernel, when that package is installed.

Not run on a GPU by this project's own tests: they bind the call to mamba-ssm's documented
signature with a stand-in on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from model_core.errors import BackendError
from model_core.ops.scan_inputs import ScanInputs

_INSTALL = (
    'Install it on a CUDA machine with: MAMBA_KEEP_CUDA_BUILD=TRUE pip install "mamba-ssm" '
    "--no-build-isolation"
)


def scan_mamba_ssm(inputs: ScanInputs) -> torch.Tensor:
    """Call ``mamba_ssm.ops.selective_scan_interface.selective_scan_fn``; float32 out of float32.

    The kernel wants float32 A, D and delta_bias, and B, C with contiguous tokens.

    Raises:
        BackendError: mamba-ssm or its compiled kernel is missing.
    """
    function, problem = mamba_ssm_function()
    if function is None:
        raise BackendError(f"mamba-ssm is {problem}. {_INSTALL}")
    out: torch.Tensor = function(
        inputs.u.contiguous(),
        inputs.delta.contiguous(),
        inputs.A.float(),
        inputs.B.contiguous(),
        inputs.C.contiguous(),
        D=None if inputs.D is None else inputs.D.float(),
        z=None if inputs.z is None else inputs.z.contiguous(),
        delta_bias=None if inputs.delta_bias is None else inputs.delta_bias.float(),
        delta_softplus=inputs.delta_softplus,
        return_last_state=False,
    )
    return out


@lru_cache(maxsize=1)
def mamba_ssm_function() -> tuple[Callable[..., Any] | None, str]:
    """Return mamba-ssm's scan and "", or None and what is wrong with the installation."""
    try:
        import selective_scan_cuda  # noqa: F401 - the compiled part, absent from default builds
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError as error:
        missing = getattr(error, "name", None) or "a shared library"
        return None, f"not usable here: {missing} is missing or does not load"
    return selective_scan_fn, ""
