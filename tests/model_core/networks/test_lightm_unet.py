from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from model_core.errors import OptionError, ShapeError
from model_core.networks import build_network
from model_core.networks.lightm_unet import LightMUNet, VisionMambaLayer
from model_core.networks.mamba import MambaMixer
from model_core.networks.tokens import FloatLayerNorm

SMALL: dict[str, Any] = {"in_channels": 1, "out_channels": 2, "init_filters": 8}


@pytest.mark.parametrize(
    "shape", [(1, 1, 16, 16, 12), (1, 1, 16, 16), (1, 2, 16, 16, 16), (1, 1, 0, 16, 16)]
)
def test_an_input_outside_the_rule_is_refused_with_the_rule(shape: tuple[int, ...]) -> None:
    network = build_network("lightm-unet", **SMALL)
    with pytest.raises(ShapeError, match="multiple of 8") as caught:
        network(torch.zeros(shape))
    assert str(shape) in str(caught.value)
    assert "(B, 1, X, Y, Z)" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "argument"),
    [
        ({"spatial_dims": 32}, "spatial_dims"),
        ({"init_filters": 12}, "init_filters"),
        ({"init_filters": 0}, "init_filters"),
        ({"blocks_up": (1, 1)}, "blocks_up"),
        ({"blocks_down": (1, 0, 1, 1)}, "blocks_up"),
    ],
)
def test_options_that_make_no_network_are_named(config: dict[str, Any], argument: str) -> None:
    with pytest.raises(OptionError) as caught:
        LightMUNet(**config)
    assert caught.value.argument == argument


def test_the_mamba_layer_normalises_twice_with_the_same_weights() -> None:
    layer = VisionMambaLayer(8, 8).eval()
    assert [name for name, module in layer.named_modules() if isinstance(module, nn.LayerNorm)] == [
        "norm"
    ]
    with torch.no_grad():
        layer.mixer.out_proj.weight.zero_()  # nothing but the skip is left: proj(LN(s·x))
        layer.skip_scale.fill_(2.0)
        layer.norm.weight.copy_(torch.arange(1.0, 9.0))
        layer.norm.bias.fill_(0.5)
        layer.proj.weight.copy_(torch.eye(8))
        layer.proj.bias.zero_()
        x = torch.randn(1, 8, 4, 6)
        standard = torch.nn.functional.layer_norm(2 * x.movedim(1, -1), (8,))
        expected = (standard * torch.arange(1.0, 9.0) + 0.5).movedim(-1, 1)
        torch.testing.assert_close(layer(x), expected)


def test_pooling_comes_after_the_mamba_layer() -> None:
    network = build_network("lightm-unet", spatial_dims=2, **SMALL)
    lengths: list[int] = []
    for module in network.modules():
        if isinstance(module, MambaMixer):
            module.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    network(torch.zeros(1, 1, 16, 32))
    # stage 0: one pair at 512 tokens; then at each stage a widening layer at the finer grid first
    assert lengths == [512] * 3 + [128] * 5 + [32] * 5 + [8] * 8


@pytest.mark.parametrize("family", ["lightm-unet", "segmamba-brtm"])
def test_layer_norm_and_mixer_stay_float32_under_autocast(family: str) -> None:
    small = {"base_channels": 8} if family == "segmamba-brtm" else {"init_filters": 8}
    torch.manual_seed(0)
    network = build_network(family, in_channels=1, out_channels=2, **small).eval()
    seen: set[torch.dtype] = set()
    for module in network.modules():
        if isinstance(module, FloatLayerNorm | MambaMixer):
            module.register_forward_hook(lambda _, __, out: seen.add(out.dtype))
    x = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        exact = network(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network(x)
    assert seen == {torch.float32}
    error = torch.linalg.vector_norm(rough.float() - exact) / torch.linalg.vector_norm(exact)
    # An untrained LightM-UNet enlarges the rounding of its eight deepest voxels to 0.03-0.16.
    assert error < (0.3 if family == "lightm-unet" else 0.02)


def test_float_layer_norm_survives_values_whose_variance_float16_cannot_hold() -> None:
    norm = FloatLayerNorm(4)
    tokens = torch.tensor([[300.0, -300.0, 300.0, -300.0]], dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.float16):
        out = norm(tokens)
    torch.testing.assert_close(out, torch.tensor([[1.0, -1.0, 1.0, -1.0]]))


def test_every_parameter_receives_a_gradient() -> None:
    torch.manual_seed(0)
    network = build_network("lightm-unet", spatial_dims=2, **SMALL)
    network(torch.randn(2, 1, 16, 16)).square().mean().backward()
    without = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.abs().sum() > 0)
    ]
    assert without == []
