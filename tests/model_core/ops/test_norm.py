"""The fused norms equal PyTorch's norm, sum and activation in float64, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model_core.ops import available_backends, use_backend
from model_core.ops.backends import CUDA_KERNELS
from model_core.ops.norm import group_norm, instance_norm
from tests.model_core.ops.problems import relative

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 6e-3}
"""Relative L2; bfloat16 rounds inputs and outputs to 8 bits."""


@pytest.fixture
def native() -> None:
    """Only where the kernels are built."""
    if available_backends()["native"] != "available":
        pytest.skip("the native kernels are not built here")


def drawn(channels: int, dtype: torch.dtype = torch.float32, *, seed: int = 0) -> Tensor:
    """(2, C, 5, 6, 7), channels-last; 210 voxels make no whole number of rows in the kernel."""
    draw = torch.Generator().manual_seed(channels + seed)
    x = torch.randn(2, channels, 5, 6, 7, generator=draw) * 3 + 5
    return x.to(dtype).contiguous(memory_format=torch.channels_last_3d)


def plain(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, slope: float, mode: str, residual: Tensor
) -> Tensor:
    y = F.group_norm(x, groups, weight, bias)
    y = F.leaky_relu(y + residual if mode == "before" else y, slope)
    return y + residual if mode == "after" else y


@pytest.mark.parametrize("mode", ["none", "before", "after"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (4, 4), (16, 8), (20, 20), (33, 11), (48, 48), (96, 8)]
)
def test_equals_pytorch_in_float64(
    backend: str, channels: int, groups: int, dtype: torch.dtype, mode: str
) -> None:
    draw = torch.Generator().manual_seed(channels)
    x, residual = drawn(channels, dtype), drawn(channels, dtype, seed=1)
    weight, bias = torch.randn(2, channels, generator=draw)
    cotangent = torch.randn(x.shape, generator=draw).to(dtype)
    for slope in (1.0, 0.01, 0.0):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias, residual)]
        wide = [t.double().clone().requires_grad_() for t in (x, weight, bias, residual)]
        extra: dict[str, Any] = {"residual": None if mode == "none" else leaves[3]}
        with use_backend(backend):
            y = group_norm(
                leaves[0], groups, leaves[1], leaves[2], slope,
                **extra, residual_after=mode == "after",
            )  # fmt: skip
        true = plain(wide[0], groups, wide[1], wide[2], slope, mode, wide[3])
        used = 3 if mode == "none" else 4
        got = torch.autograd.grad((y * cotangent).sum(), leaves[:used])
        wanted = torch.autograd.grad((true * cotangent.double()).sum(), wide[:used])
        assert y.dtype == dtype
        assert relative(y, true) < TOLERANCE[dtype]
        for ours, theirs in zip(got, wanted, strict=True):
            assert relative(ours, theirs) < TOLERANCE[dtype]


@pytest.mark.parametrize("offset", [1e3, 1e4])
def test_a_large_offset_does_not_drown_the_variance(backend: str, offset: float) -> None:
    x = (drawn(16) + offset).contiguous(memory_format=torch.channels_last_3d)
    with use_backend(backend):
        y = instance_norm(x)
    # The native kernel keeps every digit; PyTorch loses those of x beside its mean.
    tolerance = 1e-6 if backend == "native" else 3e-8 * offset
    assert relative(y, F.instance_norm(x.double())) < tolerance


def test_a_channel_far_from_the_others_keeps_its_group_right(backend: str) -> None:
    x = drawn(8)
    x[:, 3] += 500
    with use_backend(backend):
        y = group_norm(x, 2, None, None)
    assert relative(y, F.group_norm(x.double(), 2)) < 1e-5


def test_other_layouts_give_the_same_values(backend: str) -> None:
    x = drawn(16)
    with use_backend(backend):
        planar, last = instance_norm(x.contiguous(), 0.0), instance_norm(x, 0.0)
        flat = group_norm(x[:, :, 0].contiguous(memory_format=torch.channels_last), 4, None, None)
    assert relative(planar, last) < 1e-5
    assert last.stride() == x.stride()
    assert relative(flat, F.group_norm(x[:, :, 0].double(), 4)) < 1e-5


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_in_place_gives_the_same_and_never_where_autograd_needs_the_input(
    backend: str, dtype: torch.dtype
) -> None:
    x, residual = drawn(20, dtype), drawn(20, dtype, seed=1)
    kept = x.clone()
    with use_backend(backend):
        expected = instance_norm(x, 0.01, residual=residual)
        with torch.inference_mode():
            assert torch.equal(
                instance_norm(x.clone(), 0.01, residual=residual, inplace=True), expected
            )
        leaf = x.requires_grad_()
        y = instance_norm(leaf, 0.01, residual=residual, inplace=True)
    assert torch.equal(y, expected)
    assert torch.equal(leaf, kept)


def test_in_place_really_overwrites(native: None) -> None:
    x = drawn(16)
    with torch.no_grad():
        assert instance_norm(x, inplace=True).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("channels", [16, 20])
def test_the_number_of_threads_does_not_change_a_bit(native: None, channels: int) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, 20, 24, 28, generator=draw)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = instance_norm(x)
        torch.set_num_threads(3)
        assert torch.equal(instance_norm(x), alone)
    finally:
        torch.set_num_threads(threads)


def test_bfloat16_rounds_to_nearest_even_as_pytorch_does(native: None) -> None:
    x = drawn(32, torch.bfloat16)
    exact = instance_norm(x.float(), 0.01)
    assert torch.equal(instance_norm(x, 0.01), exact.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_nan_stays_nan_in_its_own_channel(backend: str, dtype: torch.dtype) -> None:
    x = drawn(16, dtype)
    x[0, 5, 2, 2, 2] = float("nan")
    with use_backend(backend):
        y = instance_norm(x, 0.0)
    assert bool(y[0, 5].isnan().all())
    assert int(y.isnan().sum()) == y[0, 5].numel()


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("affine", [False, True])
def test_the_operators_keep_pytorchs_rules(native: None, mode: int, affine: bool) -> None:
    x, residual = drawn(8).requires_grad_(), drawn(8, seed=1).requires_grad_()
    given = residual if mode else None
    weight, bias = (torch.rand(8, requires_grad=True) if affine else None for _ in range(2))
    torch.library.opcheck(torch.ops.segmamba.norm.default, (x, given, weight, bias, 4, 0.01, mode))
    plain_x, plain_given = drawn(8), None if given is None else given.detach()
    y, statistics = torch.ops.segmamba.norm(plain_x, plain_given, None, None, 4, 0.01, mode)
    torch.library.opcheck(
        torch.ops.segmamba.norm_.default, (plain_x, plain_given, None, None, 4, 0.01, mode)
    )
    torch.library.opcheck(
        torch.ops.segmamba.norm_backward.default,
        (drawn(8, seed=2), drawn(8), y, statistics, None, None, 0.01, mode),
    )


@pytest.mark.parametrize("name", CUDA_KERNELS)
def test_a_scan_for_cuda_changes_nothing_on_a_cpu(name: str) -> None:
    x = drawn(4)
    expected = instance_norm(x)
    with use_backend(name):
        assert torch.equal(instance_norm(x), expected)
