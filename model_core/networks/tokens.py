"""From a volume to a sequence of tokens and back, and the two small guards around it.

Shapes: a map is ``(B, C, *spatial)``; its tokens are ``(B, L, C)`` with L the number of voxels in
row-major order (the last spatial axis runs fastest), as every published Mamba network here reads
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.errors import ShapeError


def to_tokens(x: Tensor) -> Tensor:
    """``(B, C, *spatial)`` to ``(B, L, C)``."""
    return x.flatten(2).transpose(1, 2)


def to_volume(tokens: Tensor, spatial: Sequence[int]) -> Tensor:
    """``(B, L, C)`` to ``(B, C, *spatial)``, the inverse of `to_tokens`: a channels-last view.

    Through one flat axis, which leaves no stride to chance: PyTorch may give a batch of one any
    stride, and convolutions then take the layout for another one.
    """
    batch, _, channels = tokens.shape
    return tokens.reshape(-1).view(batch, *spatial, channels).movedim(-1, 1)


class FloatLayerNorm(nn.LayerNorm):
    """Layer normalisation over the last axis that computes in float32 or wider, whatever comes in.

    Autocast would hand it bfloat16 or float16 tokens; their variance over a long-skipped residual
    loses digits there, and float16 overflows to NaN. A float64 network stays in float64.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """``(..., C)`` to the same shape, float32 (float64 if the tokens are)."""
        dtype = torch.promote_types(tokens.dtype, torch.float32)
        with torch.autocast(tokens.device.type, enabled=False):
            return F.layer_norm(
                tokens.to(dtype),
                self.normalized_shape,
                self.weight.to(dtype),
                self.bias.to(dtype),
                self.eps,
            )


def check_input(
    x: Tensor, *, network: str, channels: int, spatial_dims: int, multiple: int, minimum: int
) -> None:
    """Refuse an input that the network cannot take.

    Args:
        x: what the caller handed over.
        network: the network's name in the message.
        channels: input channels it was built for.
        spatial_dims: 2 or 3.
        multiple: every side must be a multiple of this (1: any size).
        minimum: and at least this long.

    Raises:
        ShapeError: stating the rule, what came, and what to do.
    """
    axes = ("H, W", "X, Y, Z")[spatial_dims - 2]
    sides = tuple(x.shape[2:])
    fits = all(side >= minimum and side % multiple == 0 for side in sides)
    if x.ndim == spatial_dims + 2 and x.shape[1] == channels and fits:
        return
    step = f"a multiple of {multiple} and " if multiple > 1 else ""
    raise ShapeError(
        f"{network} takes (B, {channels}, {axes}) with every side {step}at least {minimum} voxels; "
        f"got {tuple(x.shape)}. Pad the image and crop the result, as sliding_window does."
    )
