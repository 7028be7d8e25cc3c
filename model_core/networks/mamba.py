"""The Mamba mixer: one token sequence in, one out, scanned in one or three directions.

Glossary (Mamba, arXiv 2312.00752; official names in brackets):

    B   batch                     L   tokens (the voxels of a feature map, row-major)
    C   channels in and out       D   inner channels, expand · C        [d_inner]
    N   states per channel        R   rank of the step-size projection  [dt_rank]
    Δ   step size per token and inner channel, after softplus
    A   decay rates, −exp(A_log)  x   the scanned half of in_proj,  z  the gating half

Directions are those of `model_core.ops.scan_order`: the plain Mamba block has ``forward`` alone,
SegMamba's tri-orientated block (arXiv 2401.13560; ``bimamba_type="v3"``) has all three, which share
in_proj and out_proj and are summed, not averaged, as published.

Everything here is float32 even under autocast: the recurrence multiplies tens of thousands of
decays, and half precision turns that into NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn

from model_core.ops import ScanDirection, scan_order
from model_core.ops.mamba_inner import DirectionWeights, mamba_inner

_STEP_RANGE = (1e-3, 1e-1)
"""Initial Δ is drawn log-uniformly from here (Mamba, section 3.6)."""
_STEP_FLOOR = 1e-4


class MambaMixer(nn.Module):
    """in_proj → (convolution → selective scan → gate) per direction → sum → out_proj.

    Args:
        dim: channels C of the tokens.
        state: N.
        conv: width of the causal convolution.
        expand: D / C.
        directions: the scan directions, in the order they are summed.
    """

    def __init__(
        self,
        dim: int,
        *,
        state: int = 16,
        conv: int = 4,
        expand: int = 2,
        directions: Sequence[ScanDirection] = ("forward",),
    ) -> None:
        super().__init__()
        inner = expand * dim
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.directions = tuple(directions)
        for name in directions:
            self.add_module(
                f"scan_{name}", DirectionalScan(inner, math.ceil(dim / 16), state, conv)
            )
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, tokens: torch.Tensor, num_slices: int = 1) -> torch.Tensor:
        """Mix tokens (B, L, C) → (B, L, C).

        Args:
            tokens: float32 or wider inside, whatever comes in.
            num_slices: runs of the inter-slice direction; must divide L.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            xz = self.in_proj(tokens.to(self.in_proj.weight.dtype))  # (B, L, 2D)
            orders = _orders(self.directions, xz.shape[1], num_slices, xz.device)
            mixed: torch.Tensor = self.out_proj(mamba_inner(xz, self._weights(), orders))
        return mixed

    def _weights(self) -> list[DirectionWeights]:
        scans = (self.get_submodule(f"scan_{name}") for name in self.directions)
        return [scan.weights() for scan in scans if isinstance(scan, DirectionalScan)]


class DirectionalScan(nn.Module):
    """The parameters of one scan direction over D inner channels; `mamba_inner` does the work."""

    def __init__(self, inner: int, rank: int, state: int, conv: int) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, state + 1)).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        # Only its parameters are used: the convolution follows the scan's order of tokens.
        self.conv = nn.Conv1d(inner, inner, conv, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        _initialise_steps(self.dt_proj)

    def weights(self) -> DirectionWeights:
        """The parameters as `mamba_inner` takes them."""
        assert self.conv.bias is not None
        return DirectionWeights(
            conv_weight=self.conv.weight[:, 0],
            conv_bias=self.conv.bias,
            x_proj=self.x_proj.weight,
            dt_proj=self.dt_proj.weight,
            dt_bias=self.dt_proj.bias,
            A=-torch.exp(self.A_log),
            D=self.D,
        )


@lru_cache(maxsize=64)
def _orders(
    directions: tuple[ScanDirection, ...], length: int, num_slices: int, device: torch.device
) -> torch.Tensor | None:
    """The scan orders of all directions, (directions, L); None when every token lies in place.

    They lie on the device: a copy in every pass would wait for it, and no graph can record one.
    """
    found = [scan_order(name, length, num_slices) for name in directions]
    if all(order is None for order in found):
        return None
    # The cache outlives inference mode, whose tensors autograd refuses.
    with torch.inference_mode(False):
        in_place = torch.arange(length)
        rows = [in_place if order is None else order for order in found]
        return torch.stack(rows).to(device=device, dtype=torch.int32)


def _initialise_steps(dt_proj: nn.Linear) -> None:
    """Draw the initial Δ log-uniformly and store it in the bias through the inverse softplus."""
    bound = dt_proj.in_features**-0.5
    nn.init.uniform_(dt_proj.weight, -bound, bound)
    low, high = (math.log(limit) for limit in _STEP_RANGE)
    steps = torch.exp(torch.rand(dt_proj.out_features) * (high - low) + low).clamp(min=_STEP_FLOOR)
    with torch.no_grad():
        dt_proj.bias.copy_(steps + torch.log(-torch.expm1(-steps)))
