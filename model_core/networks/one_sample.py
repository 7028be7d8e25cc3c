"""Convolutions of a single sample whose gradients oneDNN computes too, on a CPU in float32.

At batch 1 PyTorch (2.13) gives the backward pass of small maps, those of at most `LOOP_BELOW`
values along batch, channels, depth and height, to a plain loop, several times slower than oneDNN.
It looks at nothing beyond that, so here the sample is handed to it as a batch of two: its front and
its back half along the depth, which overlap by what the kernel reaches. The values are those of
PyTorch's own backward pass up to rounding.
"""

from __future__ import annotations

from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from model_core.types import Shape3

LOOP_BELOW: Final = 20_480
"""``use_mkldnn`` in ATen's Convolution.cpp."""
_WIDE_KERNEL: Final = 3
"""Kernels wider than this go to oneDNN whatever the map."""


def convolve_pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1³ convolution of (B, in, D, H, W) as one matrix product."""
    y = F.linear(x.movedim(1, -1), weight.flatten(1), bias)
    return y.movedim(-1, 1)


def wants_halves(x: Tensor, kernel: Shape3, stride: Shape3, padding: Shape3) -> bool:
    """Whether PyTorch's own backward pass would be the loop, and the sample can be halved."""
    depth = (x.shape[2] + 2 * padding[0] - kernel[0]) // stride[0] + 1
    loop = x.shape[:4].numel() <= LOOP_BELOW and min(kernel) <= _WIDE_KERNEL
    return loop and depth % 2 == 0


class HalvedBackward(torch.autograd.Function):
    """``apply(x, weight, bias, stride, padding)``: a dense convolution of (1, in, D, H, W)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Shape3, padding: Shape3
    ) -> Tensor:
        """Convolve."""
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.with_bias = stride, padding, bias is not None
        return torch.mkldnn_convolution(x, weight, bias, padding, stride, (1, 1, 1), 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the sample, the weights and the bias."""
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        rows = grad.shape[2] // 2
        reach = (rows - 1) * stride[0] + weight.shape[2]
        starts = (-padding[0], rows * stride[0] - padding[0])
        needed = (*ctx.needs_input_grad[:2], ctx.with_bias and ctx.needs_input_grad[2])
        grads = torch.ops.aten.convolution_backward(
            torch.cat([grad[:, :, :rows], grad[:, :, rows:]]),
            _halves(x, starts, reach),
            weight,
            [weight.shape[0]] if ctx.with_bias else None,
            list(stride),
            [0, *padding[1:]],
            [1, 1, 1],
            False,
            [0, 0, 0],
            1,
            list(needed),
        )
        of_halves, of_weight, of_bias = cast("tuple[Tensor | None, ...]", grads)
        of_x = None if of_halves is None else _joined(of_halves, x, starts)
        return of_x, of_weight, of_bias, None, None


def _halves(x: Tensor, starts: tuple[int, int], length: int) -> Tensor:
    """Two pieces of a sample along the depth as (2, in, length, H, W); zeros outside of it."""
    pieces = x.new_zeros((2, x.shape[1], length, *x.shape[3:]))
    pieces = pieces.contiguous(memory_format=torch.channels_last_3d)
    for piece, start in zip(pieces, starts, strict=True):
        inside = _inside(start, length, x.shape[2])
        piece[:, inside.start - start : inside.stop - start] = x[0, :, inside]
    return pieces


def _joined(pieces: Tensor, x: Tensor, starts: tuple[int, int]) -> Tensor:
    """The adjoint of `_halves`: both pieces added where they lie in the sample."""
    whole = torch.zeros_like(x)
    for piece, start in zip(pieces, starts, strict=True):
        inside = _inside(start, pieces.shape[2], x.shape[2])
        whole[0, :, inside] += piece[:, inside.start - start : inside.stop - start]
    return whole


def _inside(start: int, length: int, extent: int) -> slice:
    return slice(max(0, start), min(extent, start + length))
