"""The fused norm equals PyTorch's instance norm and activation, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from model_core.ops import available_backends, instance_norm, use_backend
from tests.model_core.ops.problems import relative


@pytest.mark.parametrize("channels", [1, 16, 20, 48])
@pytest.mark.parametrize("slope", [1.0, 0.01, 0.0])
def test_equals_pytorch_in_float64(backend: str, channels: int, slope: float) -> None:
    # Drawn so that no normalised value lies within rounding of 0, where the slope jumps.
    draw = torch.Generator().manual_seed(channels)
    x = torch.randn(2, channels, 9, 10, 11, generator=draw) * 3 + 5
    x = x.to(memory_format=torch.channels_last_3d)
    weight = torch.randn(x.shape, generator=draw)
    results = []
    for leaf in (x.clone().requires_grad_(), x.double().clone().requires_grad_()):
        with use_backend(backend):
            y = (
                instance_norm(leaf, slope)
                if leaf.dtype == torch.float32
                else F.leaky_relu(F.instance_norm(leaf), slope)
            )
        results.append((y, torch.autograd.grad((y * weight).sum(), leaf)[0]))
    for got, true in zip(*results, strict=True):
        assert relative(got, true) < 1e-5


def test_a_large_offset_does_not_drown_the_variance() -> None:
    """The native kernel sums around the first voxel; PyTorch's group norm would lose this."""
    if available_backends()["native"] != "available":
        pytest.skip("the native kernels are not built here")
    draw = torch.Generator().manual_seed(0)
    x = (torch.randn(1, 16, 16, 16, 16, generator=draw) + 1e4).to(
        memory_format=torch.channels_last_3d
    )
    with use_backend("native"):
        y = instance_norm(x)
    assert relative(y, F.instance_norm(x.double())) < 2e-3


def test_other_layouts_give_the_same_values(backend: str) -> None:
    x = torch.randn(2, 16, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    with use_backend(backend):
        planar, last = instance_norm(x), instance_norm(x.to(memory_format=torch.channels_last_3d))
    assert relative(planar, last) < 1e-5
