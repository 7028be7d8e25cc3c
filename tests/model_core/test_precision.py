"""Which precision is chosen, and that bfloat16 reaches the convolutions and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model_core import precision
from model_core.errors import OptionError
from model_core.networks import build_network
from model_core.networks.mamba import MambaMixer
from model_core.precision import (
    PRECISION_VARIABLE,
    Precision,
    at_precision,
    describe_precision,
    precision_of_capability,
    resolve_precision,
)

AMX = {"avx2": True, "avx512": True, "avx512_bf16": True, "amx_bf16": True}
ZEN4 = AMX | {"amx_bf16": False}
OLD = ZEN4 | {"avx512_bf16": False}


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRECISION_VARIABLE, raising=False)


def machine(monkeypatch: pytest.MonkeyPatch, features: dict[str, bool]) -> None:
    monkeypatch.setattr(precision, "cpu_features", lambda: features)


@pytest.mark.parametrize(
    ("features", "device", "expected"),
    [
        (AMX, "cpu", "bfloat16"),
        (ZEN4, "cpu", "bfloat16"),
        (OLD, "cpu", "float32"),
        ({}, "cpu", "float32"),
        (AMX, "cuda", "float32"),
        (AMX, "cuda:1", "float32"),
    ],
)
@pytest.mark.parametrize("requested", [None, "auto", "AUTO", ""])
def test_auto_takes_bfloat16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch,
    features: dict[str, bool],
    device: str,
    requested: str | None,
    expected: str,
) -> None:
    machine(monkeypatch, features)
    assert resolve_precision(device, requested) == expected
    assert resolve_precision(torch.device(device), requested) == expected


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        (None, "float32"),
        ((3, 7), "float32"),
        ((6, 1), "float32"),
        ((7, 0), "float16"),
        ((7, 5), "float16"),
        ((8, 0), "bfloat16"),
        ((8, 9), "bfloat16"),
        ((12, 0), "bfloat16"),
    ],
)
def test_auto_on_cuda_takes_what_the_matrix_units_take(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, expected: str
) -> None:
    asked: list[object] = []

    def look(device: object) -> tuple[int, int] | None:
        asked.append(device)
        return capability

    monkeypatch.setattr("torch.cuda.is_available", lambda: capability is not None)
    monkeypatch.setattr("torch.cuda.get_device_capability", look)
    assert precision_of_capability(capability) == expected
    assert resolve_precision("cuda:1") == expected
    assert resolve_precision("cuda:1", "float32") == "float32"
    assert resolve_precision("cuda:1", "float16") == "float16"
    assert asked == ([] if capability is None else [torch.device("cuda:1")])


def test_another_device_than_these_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, AMX)
    assert resolve_precision("mps") == "float32"


@pytest.mark.parametrize("cache", [True, False])
def test_converted_weights_are_kept_only_where_that_is_wanted(cache: bool) -> None:
    with at_precision("cpu", "bfloat16", cache=cache):
        assert torch.is_autocast_cache_enabled() is cache


@pytest.mark.parametrize("features", [AMX, OLD])
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_name_wins_over_the_variable_and_that_over_the_machine(
    monkeypatch: pytest.MonkeyPatch, features: dict[str, bool], name: str, device: str
) -> None:
    machine(monkeypatch, features)
    monkeypatch.setenv(PRECISION_VARIABLE, name)
    other = "float32" if name == "bfloat16" else "bfloat16"
    assert resolve_precision(device) == name
    assert resolve_precision(device, "auto") == name
    assert resolve_precision(device, other) == other


def test_the_variable_may_say_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, AMX)
    monkeypatch.setenv(PRECISION_VARIABLE, "auto")
    assert resolve_precision("cpu") == "bfloat16"


def test_an_unknown_name_is_refused_with_those_that_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        OptionError, match="auto, float32, bfloat16 on cpu, got 'float16'"
    ) as caught:
        resolve_precision("cpu", "float16")
    assert caught.value.argument == "precision"
    with pytest.raises(OptionError, match="auto, float32, bfloat16, float16 on cuda"):
        resolve_precision("cuda", "float64")
    monkeypatch.setenv(PRECISION_VARIABLE, "fp8")
    with pytest.raises(OptionError, match="'fp8'") as caught:
        resolve_precision("cpu")
    assert caught.value.argument == PRECISION_VARIABLE


@pytest.mark.parametrize(
    ("features", "device", "name", "expected"),
    [
        (AMX, "cpu", "bfloat16", "bfloat16 (amx_bf16)"),
        (ZEN4, "cpu", "bfloat16", "bfloat16 (avx512_bf16)"),
        (OLD, "cpu", "bfloat16", "bfloat16 (emulated: slower)"),
        (OLD, "cpu", "float32", "float32"),
        (OLD, "cuda", "bfloat16", "bfloat16"),
        (OLD, "cuda", "float16", "float16"),
    ],
)
def test_a_description_names_the_instructions_or_the_emulation(
    monkeypatch: pytest.MonkeyPatch,
    features: dict[str, bool],
    device: str,
    name: Precision,
    expected: str,
) -> None:
    machine(monkeypatch, features)
    assert describe_precision(device, name) == expected


def test_a_convolution_rounds_in_bfloat16_and_not_in_float32() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv3d(4, 4, 3), torch.randn(1, 4, 6, 6, 6)
    exact = layer(x)
    with at_precision("cpu", "float32"):
        assert torch.equal(layer(x), exact)
    with at_precision("cpu", "bfloat16"):
        rounded = layer(x)
    assert rounded.dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32
    error = ((rounded.float() - exact).norm() / exact.norm()).item()
    assert 1e-4 < error < 1e-2  # bfloat16 keeps 8 bits


def test_precision_ends_with_its_context_and_with_an_error_in_it() -> None:
    layer, x = nn.Conv3d(1, 1, 1), torch.ones(1, 1, 2, 2, 2)
    with pytest.raises(RuntimeError), at_precision("cpu", "bfloat16"):
        raise RuntimeError
    assert layer(x).dtype == torch.float32


def small_network() -> nn.Module:
    torch.manual_seed(3)
    return build_network(
        "segmamba", in_channels=4, out_channels=3, depths=(1, 1, 1, 1),
        features=(8, 8, 16, 16), hidden=16,
    ).eval()  # fmt: skip


def test_inside_a_network_convolutions_are_bfloat16_and_mamba_stays_float32() -> None:
    network, seen = small_network(), {"conv": set(), "mamba": set()}

    def note(kind: str):
        return lambda _module, _inputs, output: seen[kind].add(output.dtype)

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d) and name != "head":
            module.register_forward_hook(note("conv"))
        if isinstance(module, MambaMixer):
            module.register_forward_hook(note("mamba"))
    with torch.inference_mode(), at_precision("cpu", "bfloat16"):
        logits = network(torch.randn(1, 4, 32, 32, 32))
    assert seen["mamba"] == {torch.float32}
    assert torch.bfloat16 in seen["conv"]
    assert torch.isfinite(logits.float()).all()


def test_a_network_gives_nearly_the_same_logits_and_keeps_its_weights() -> None:
    network = small_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(1, 4, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        exact = network(x)
        with at_precision("cpu", "bfloat16"):
            rounded = network(x).float()
    error = ((rounded - exact).norm() / exact.norm()).item()
    assert 1e-5 < error < 5e-2
    for name, value in network.state_dict().items():
        assert value.dtype == before[name].dtype, name
        assert torch.equal(value, before[name]), name


def test_gradients_arrive_in_float32_and_agree_in_direction() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv3d(4, 4, 3, padding=1), torch.randn(1, 4, 8, 8, 8)

    def gradient(name: Precision) -> torch.Tensor:
        layer.zero_grad()
        with at_precision("cpu", name):
            y = layer(x)
        (y.float() ** 2).mean().backward()
        assert layer.weight.grad is not None
        return layer.weight.grad.clone()

    exact, rounded = gradient("float32"), gradient("bfloat16")
    assert rounded.dtype == torch.float32
    assert ((exact - rounded).norm() / exact.norm()).item() < 2e-2
    assert not torch.equal(exact, rounded)
