"""The mixer computes the published block whatever runs it, and trains through it."""

from __future__ import annotations

import pytest
import torch

from model_core.networks.mamba import MambaMixer
from model_core.ops import SCAN_DIRECTIONS, available_backends, use_backend
from tests.model_core.ops.problems import relative


def mixer(*directions: str, dim: int = 12) -> MambaMixer:
    torch.manual_seed(0)
    return MambaMixer(dim, directions=directions or SCAN_DIRECTIONS)  # type: ignore[arg-type]


@pytest.mark.skipif(available_backends()["native"] != "available", reason="not built")
def test_native_equals_the_composition_in_float64_with_gradients() -> None:
    mix = mixer()
    tokens = torch.randn(2, 60, 12)
    results = []
    for backend, dtype in (("native", torch.float32), ("torch", torch.float64)):
        mix.to(dtype).zero_grad()
        with use_backend(backend):
            out = mix(tokens.to(dtype), 5)
            out.square().sum().backward()
        grads = [p.grad.clone() for p in mix.parameters() if p.grad is not None]
        results.append([out, *grads])
    assert len(results[0]) == 1 + len(list(mix.parameters()))
    for got, true in zip(*results, strict=True):
        assert relative(got, true) < 1e-5


def test_the_reverse_direction_reads_the_sequence_backwards() -> None:
    forward, reverse = mixer("forward"), mixer("reverse")
    reverse.load_state_dict(
        {name.replace("forward", "reverse"): w for name, w in forward.state_dict().items()}
    )
    tokens = torch.randn(1, 40, 12)
    with torch.no_grad():
        assert relative(reverse(tokens), forward(tokens.flip(1)).flip(1)) < 1e-6


def test_orders_survive_inference_mode() -> None:
    """The orders are cached; a cache filled in inference mode must serve training after it."""
    mix = mixer()
    tokens = torch.randn(1, 36, 12)
    with torch.inference_mode():
        before = mix(tokens, 4)
    out = mix(tokens, 4)
    out.sum().backward()
    assert torch.equal(out.detach(), before)


def test_stays_float32_under_autocast() -> None:
    mix = mixer()
    tokens = torch.randn(1, 24, 12)
    with torch.no_grad():
        plain = mix(tokens, 3)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(mix(tokens, 3), plain)


def test_parameters_keep_their_names() -> None:
    names = set(mixer("forward").state_dict())
    own = {"A_log", "D", "conv.weight", "conv.bias", "x_proj.weight"}
    own |= {"dt_proj.weight", "dt_proj.bias"}
    assert names == {"in_proj.weight", "out_proj.weight"} | {f"scan_forward.{n}" for n in own}
