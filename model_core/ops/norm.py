"""Instance norm without parameters, fused with the activation that follows it.

SegMamba normalises after nearly every convolution; on a CPU these norms cost as much as the
convolutions themselves unless mean, variance, scaling and activation share their passes over
memory. The native kernel does that for channels-last float32; everything else goes to PyTorch.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import torch
from torch.nn import functional as F

from model_core.ops.backends import resolve_backend
from model_core.ops.native_library import native_library

EPSILON: Final = 1e-5


def instance_norm(x: torch.Tensor, slope: float = 1.0) -> torch.Tensor:
    """Normalise each image and channel of ``x`` (B, C, *spatial), then apply LeakyReLU.

    Args:
        x: any float dtype; statistics are float32 or wider.
        slope: what negative values are multiplied by: 1 keeps them (no activation), 0 is ReLU.

    Returns:
        The shape and dtype of ``x``; variance is the biased one, ε = 1e-5, as in PyTorch.
    """
    if _native_takes(x):
        out: torch.Tensor = _Norm.apply(x, slope)  # type: ignore[no-untyped-call]
        return out
    y = F.group_norm(x, x.shape[1], eps=EPSILON)
    return y if slope == 1.0 else F.leaky_relu(y, slope)


def _native_takes(x: torch.Tensor) -> bool:
    if x.dtype != torch.float32 or x.device.type != "cpu" or x.dim() != 5:
        return False
    dense = x.is_contiguous(memory_format=torch.channels_last_3d)
    return dense and resolve_backend("cpu") == "native"


class _NormArguments(ctypes.Structure):
    """Mirror of ``NormArguments`` in instance_norm.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "voxels", "channels")),
        *((name, ctypes.c_void_p) for name in ("x", "dy", "y", "dx", "mean", "rstd")),
        *((name, ctypes.c_float) for name in ("eps", "slope")),
        ("threads", ctypes.c_int32),
    )


class _Norm(torch.autograd.Function):
    """The native kernels on a dense channels-last (B, C, D, H, W)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, slope: float) -> torch.Tensor:
        y = torch.empty_like(x)
        statistics = torch.empty(2, *x.shape[:2])
        arguments = _arguments(x, statistics, slope)
        arguments.y = y.data_ptr()
        _call("segmamba_norm_forward", arguments)
        ctx.save_for_backward(x, statistics)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        x, statistics = ctx.saved_tensors
        dy = grads[0].float().contiguous(memory_format=torch.channels_last_3d)
        dx = torch.empty_like(x)
        arguments = _arguments(x, statistics, ctx.slope)
        arguments.dy, arguments.dx = dy.data_ptr(), dx.data_ptr()
        _call("segmamba_norm_backward", arguments)
        return dx, None


def _arguments(x: torch.Tensor, statistics: torch.Tensor, slope: float) -> _NormArguments:
    return _NormArguments(
        batch=x.shape[0],
        voxels=x[0, 0].numel(),
        channels=x.shape[1],
        x=x.data_ptr(),
        mean=statistics[0].data_ptr(),
        rstd=statistics[1].data_ptr(),
        eps=EPSILON,
        slope=slope,
        threads=torch.get_num_threads(),
    )


def _call(function: str, arguments: _NormArguments) -> None:
    library = native_library()
    assert library is not None, "chosen only when the kernels are loaded"
    getattr(library, function)(ctypes.byref(arguments))
