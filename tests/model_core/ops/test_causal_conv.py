"""The causal convolution sees the past only, and every backend agrees."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from model_core.errors import ShapeError
from model_core.ops import causal_conv1d, resolve_backend, scan_order
from tests.model_core.ops.problems import relative


def problem(channels: int = 5, length: int = 300, width: int = 4) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(channels)
    x = torch.randn(2, channels, length, generator=draw)
    return x, torch.randn(channels, width, generator=draw), torch.randn(channels, generator=draw)


@pytest.mark.parametrize("channels", [1, 5, 16, 33])
@pytest.mark.parametrize("width", [1, 2, 4, 7])
def test_equals_a_sum_over_shifted_copies(backend: str, channels: int, width: int) -> None:
    x, weight, bias = problem(channels, 300, width)
    true = bias[:, None] + sum(
        weight[:, k, None] * F.pad(x, (width - 1 - k, 0))[..., :300] for k in range(width)
    )
    got = causal_conv1d(x, weight, bias, silu=True, backend=backend)
    assert relative(got, F.silu(true)) < 1e-6


def test_the_future_changes_nothing(backend: str) -> None:
    x, weight, bias = problem()
    changed = x.clone()
    changed[..., 200:] += 1
    before, after = (causal_conv1d(v, weight, bias, backend=backend) for v in (x, changed))
    assert torch.equal(before[..., :200], after[..., :200])
    assert not torch.equal(before[..., 200], after[..., 200])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_result_lies_in_memory_as_x_does_and_has_its_dtype(dtype: torch.dtype) -> None:
    if resolve_backend("cpu") != "native":
        pytest.skip("PyTorch lays its result out as it likes")
    x, weight, bias = problem(channels=33)
    rows = x.transpose(1, 2).contiguous().transpose(1, 2)
    true = causal_conv1d(x, weight, bias, backend="torch")
    for given in (x.to(dtype), rows.to(dtype)):
        got = causal_conv1d(given, weight, bias)
        assert got.dtype == dtype
        assert got.stride() == given.stride()
        assert relative(got, true) < (5e-3 if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse", "inter_slice"])
def test_gradients_equal_autograd_through_pytorch(backend: str, silu: bool, direction: str) -> None:
    order = scan_order(direction, 300, 6)  # type: ignore[arg-type]
    results = []
    for name in (backend, "torch"):
        leaves = [v.clone().requires_grad_() for v in problem()]
        y = causal_conv1d(*leaves, silu=silu, backend=name, order=order)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        results.append((y, *torch.autograd.grad((y * weight).sum(), leaves)))
    for got, true in zip(*results, strict=True):
        assert relative(got, true) < 1e-5


def test_a_wrong_weight_is_refused() -> None:
    x, weight, bias = problem()
    with pytest.raises(ShapeError, match=r"weight must be \(5, K\)"):
        causal_conv1d(x, weight[:4], bias)
    with pytest.raises(ShapeError, match=r"bias must be \(5,\)"):
        causal_conv1d(x, weight, bias[:4])
    with pytest.raises(ShapeError, match=r"order must be \(300,\)"):
        causal_conv1d(x, weight, bias, order=torch.arange(299))
    with pytest.raises(ShapeError, match="got 1 to 300"):
        causal_conv1d(x, weight, bias, order=torch.arange(300) + 1)
