"""A single sample's convolution has the values and the gradients of PyTorch's own in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model_core.networks.blocks import Conv3d
from model_core.networks.one_sample import HalvedBackward, wants_halves

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN"
)
CASES = {
    # in, out, kernel, stride, padding, map
    "as in a residual block": (8, 8, 3, 1, 1, (16, 12, 8)),
    "two rows": (4, 6, 3, 1, 1, (2, 4, 4)),
    "an odd number of rows": (8, 8, 3, 1, 1, (3, 5, 7)),
    "halving": (8, 16, 2, 2, 0, (8, 8, 8)),
    "strided with a reach": (4, 8, 3, 2, 1, (8, 6, 6)),
    "the stem": (4, 8, 7, 2, 3, (16, 16, 16)),
    "pointwise": (16, 8, 1, 1, 0, (6, 8, 8)),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_definition(case: str, bias: bool) -> None:
    into, out, kernel, stride, padding, shape = CASES[case]
    draw = torch.Generator().manual_seed(5)
    ours = Conv3d(into, out, kernel, stride=stride, padding=padding, bias=bias)
    truth = nn.Conv3d(into, out, kernel, stride=stride, padding=padding, bias=bias).double()
    truth.load_state_dict(ours.state_dict())
    x = torch.randn(1, into, *shape, generator=draw).contiguous(
        memory_format=torch.channels_last_3d
    )
    x.requires_grad_()
    exact = x.detach().double().requires_grad_()
    y, y_exact = ours(x), truth(exact)
    pull = torch.randn(y.shape, generator=draw)
    y.backward(pull)
    y_exact.backward(pull.double())
    torch.testing.assert_close(y.double(), y_exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)
    for name, parameter in ours.named_parameters():
        expected = truth.get_parameter(name).grad
        scale = float(expected.abs().max())
        torch.testing.assert_close(parameter.grad.double(), expected, rtol=1e-4, atol=1e-5 * scale)


def test_the_input_keeps_its_layout_on_the_way_back() -> None:
    x = torch.randn(1, 8, 8, 8, 8).contiguous(memory_format=torch.channels_last_3d)
    x.requires_grad_()
    Conv3d(8, 8, 3, padding=1)(x).sum().backward()
    assert x.grad.is_contiguous(memory_format=torch.channels_last_3d)


def test_only_what_pytorch_would_loop_over_is_halved() -> None:
    three, one, two = (3, 3, 3), (1, 1, 1), (2, 2, 2)
    small = torch.empty(1, 8, 16, 16, 1)
    assert wants_halves(small, three, one, one)
    assert not wants_halves(torch.empty(1, 8, 64, 64, 1), three, one, one)
    assert not wants_halves(torch.empty(1, 8, 15, 16, 1), three, one, one)
    assert not wants_halves(small, (7, 7, 7), two, three)


def test_frozen_weights_get_no_gradient() -> None:
    convolution = Conv3d(4, 4, 3, padding=1)
    convolution.weight.requires_grad_(False)
    x = torch.randn(1, 4, 4, 4, 4, requires_grad=True)
    y = convolution(x)
    assert isinstance(y.grad_fn, HalvedBackward._backward_cls)
    y.sum().backward()
    assert x.grad is not None
    assert convolution.weight.grad is None
