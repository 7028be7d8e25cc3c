"""The convolutions equal PyTorch's, take no slow way, and leave the layout as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import profile

from model_core.networks import build_network
from model_core.networks.blocks import Conv3d, DoublingConv3d, ResidualConvBlock, channels_last
from model_core.networks.lightm_unet import _max_pool
from model_core.networks.tokens import to_tokens, to_volume
from model_core.ops.norm import group_norm
from model_core.precision import fast_bfloat16
from tests.model_core.ops.problems import relative

LAST = torch.channels_last_3d
NETWORKS: dict[str, dict[str, Any]] = {
    "segmamba": {"depths": (1, 1, 1, 1), "features": (8, 8, 8, 16), "hidden": 16},
    "segmamba-brtm": {"base_channels": 8, "depths": (1, 1)},
    "lightm-unet": {"init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)},
}


def image(channels: int, *sides: int) -> Tensor:
    draw = torch.Generator().manual_seed(channels)
    return channels_last(torch.randn(1, channels, *sides, generator=draw))


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_a_convolution_is_pytorchs_forward_and_backward(kernel: int) -> None:
    torch.manual_seed(0)
    ours = Conv3d(4, 6, kernel, padding=kernel // 2, stride=1 + kernel % 2)
    plain = nn.Conv3d(4, 6, kernel, padding=kernel // 2, stride=1 + kernel % 2).double()
    plain.load_state_dict(ours.state_dict())
    x = image(4, 6, 8, 10).requires_grad_()
    wide = x.detach().double().requires_grad_()
    got, wanted = ours(x), plain(wide)
    assert relative(got, wanted) < 1e-6
    got.square().sum().backward()
    wanted.square().sum().backward()
    for a, b in zip((x, *ours.parameters()), (wide, *plain.parameters()), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert relative(a.grad, b.grad) < 1e-6


@pytest.mark.parametrize("bias", [False, True])
def test_the_doubling_convolution_is_the_transposed_one(bias: bool) -> None:
    torch.manual_seed(0)
    ours = DoublingConv3d(6, 5, bias=bias)
    x = image(6, 2, 3, 4)
    double = None if ours.bias is None else ours.bias.double()
    expected = F.conv_transpose3d(x.double(), ours.weight.double(), double, stride=2)
    assert relative(ours(x), expected) < 1e-6


@pytest.mark.parametrize("sides", [(4, 6, 8), (4, 6)])
def test_the_largest_of_two_along_every_axis_is_max_pooling(sides: tuple[int, ...]) -> None:
    x = image(5, *sides)
    pool = F.max_pool3d if len(sides) == 3 else F.max_pool2d
    assert torch.equal(_max_pool(x), pool(x, 2))


def test_a_block_is_its_published_formula() -> None:
    torch.manual_seed(0)
    block = ResidualConvBlock(4, 6)
    x = image(4, 4, 5, 6)

    def norm(y: Tensor) -> Tensor:
        return group_norm(y.double(), 6, None, None)

    with torch.inference_mode():
        y = F.leaky_relu(norm(block.conv1(x)), 0.01).float()
        assert block.shortcut is not None
        y = norm(block.conv2(y)) + norm(block.shortcut(x))
        kept = x.clone()
        assert relative(block(x), F.leaky_relu(y, 0.01)) < 1e-5
        assert torch.equal(x, kept)  # in place only over what the block made itself


def test_tokens_and_back_are_views_with_the_strides_of_their_layout() -> None:
    x = image(8, 2, 3, 4)
    again = to_volume(to_tokens(x), (2, 3, 4))
    assert again.data_ptr() == x.data_ptr()
    assert again.stride() == x.stride()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_map_leaves_channels_last_and_no_convolution_takes_the_slow_way(
    name: str, precision: torch.dtype
) -> None:
    if precision == torch.bfloat16 and fast_bfloat16() is None:
        pytest.skip("bfloat16 is emulated here, and not by oneDNN")
    network = build_network(name, in_channels=2, out_channels=3, **NETWORKS[name]).eval()
    strayed: list[str] = []

    def watch(label: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, y: Any) -> None:
            if isinstance(y, Tensor) and y.dim() == 5 and not y.is_contiguous(memory_format=LAST):
                strayed.append(label)

        return hook

    for label, module in network.named_modules():
        module.register_forward_hook(watch(label))
    on = precision != torch.float32
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=on)
    with torch.inference_mode(), autocast, profile() as profiled:
        logits = network(image(2, 32, 32, 32))
    assert strayed == []
    assert logits.dtype == torch.float32
    slow = {event.key for event in profiled.key_averages() if "slow_conv" in event.key}
    assert slow == set()


@pytest.mark.parametrize("name", NETWORKS)
def test_inference_with_its_work_in_place_equals_the_pass_that_autograd_follows(name: str) -> None:
    torch.manual_seed(0)
    network = build_network(name, in_channels=2, out_channels=3, **NETWORKS[name]).eval()
    x = image(2, 16, 16, 32)
    kept = x.clone()
    with torch.inference_mode():
        quick = network(x)
    assert relative(quick, network(x)) < 1e-5
    assert torch.equal(x, kept)


@pytest.mark.parametrize("groups", [1, 32])
@pytest.mark.parametrize("side", [2, 3, 4])
def test_bfloat16_weight_gradients_are_right_on_the_smallest_maps(side: int, groups: int) -> None:
    torch.manual_seed(0)
    convolution = Conv3d(32, 32, 3, padding=1, bias=False, groups=groups)
    image, towards = torch.randn(1, 32, side, 5, 5), torch.randn(1, 32, side, 5, 5)

    def gradient(half: bool) -> torch.Tensor:
        # what oneDNN would read where it should not
        junk = [torch.full((1 << size,), torch.inf) for size in range(8, 21, 2)]
        del junk
        convolution.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            scores = convolution(image)
        scores.backward(towards.to(scores.dtype))
        assert convolution.weight.grad is not None
        return convolution.weight.grad.clone()

    exact = gradient(half=False)
    for _ in range(3):
        assert (gradient(half=True) - exact).norm() < 0.02 * exact.norm()
