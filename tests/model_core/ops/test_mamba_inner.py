"""The fused Mamba operation equals its composition from single operations, forward and backward."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator

import pytest
import torch

from model_core.errors import ShapeError
from model_core.ops import available_backends
from model_core.ops.mamba_inner import (
    DirectionWeights,
    mamba_inner,
    mamba_inner_composed,
)
from model_core.ops.native_library import native_library
from tests.model_core.ops.problems import relative

FLOAT32 = 2e-6
"""Relative error allowed in float32; the composition in float32 is off by about as much."""
GRADIENT = 1e-5

native = pytest.mark.skipif(
    available_backends()["native"] != "available", reason="the native kernels are not built"
)
Problem = tuple[torch.Tensor, list[DirectionWeights], torch.Tensor | None]

SIZES = {
    # batch, length, channels, states, rank, width, directions
    "one token": (1, 1, 5, 16, 1, 4, 1),
    "shorter than the convolution": (1, 2, 16, 16, 1, 4, 2),
    "odd channels": (2, 70, 17, 16, 2, 4, 2),
    "odd everything": (2, 45, 19, 11, 3, 7, 1),
    "many states": (1, 40, 8, 40, 1, 4, 1),
    "no memory in the convolution": (1, 64, 16, 16, 1, 1, 1),
    "three directions": (2, 130, 32, 16, 1, 4, 3),
    "several stretches": (1, 1300, 96, 16, 3, 4, 2),
}


def problem(
    batch: int, length: int, channels: int, states: int, rank: int, width: int, directions: int
) -> Problem:
    """Random operands in the ranges of a trained network, each direction in a random order."""
    draw = torch.Generator().manual_seed(length * 100 + channels)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    weights = [
        DirectionWeights(
            conv_weight=normal(channels, width) * 0.5,
            conv_bias=normal(channels) * 0.1,
            x_proj=normal(rank + 2 * states, channels) * channels**-0.5,
            dt_proj=normal(channels, rank) * rank**-0.5,
            dt_bias=normal(channels) - 2,
            A=-torch.exp(normal(channels, states)),
            D=normal(channels),
        )
        for _ in range(directions)
    ]
    orders = torch.stack([torch.randperm(length, generator=draw) for _ in range(directions)])
    return normal(batch, length, 2 * channels), weights, orders


def doubled(given: Problem) -> Problem:
    xz, weights, orders = given
    return xz.double(), [DirectionWeights(*(w.double() for w in ws)) for ws in weights], orders


def truth(
    xz: torch.Tensor, ws: list[DirectionWeights], orders: torch.Tensor | None
) -> torch.Tensor:
    """The composition on the PyTorch backend, which keeps float64."""
    return mamba_inner_composed(xz, ws, orders, "torch")


def fused(
    xz: torch.Tensor, ws: list[DirectionWeights], orders: torch.Tensor | None
) -> torch.Tensor:
    return mamba_inner(xz, ws, orders, "native")


def gradients(
    function: Callable[..., torch.Tensor],
    xz: torch.Tensor,
    ws: list[DirectionWeights],
    orders: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """The gradient of a random projection of the result by xz and every weight."""
    leaves = {"xz": xz.clone().requires_grad_()}
    tracked = []
    for i, weights in enumerate(ws):
        mine = {f"{name} {i}": w.clone().requires_grad_() for name, w in weights._asdict().items()}
        leaves |= mine
        tracked.append(DirectionWeights(*mine.values()))
    out = function(leaves["xz"], tracked, orders)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((out * weight.to(out.dtype)).sum(), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets PyTorch's number of threads, for the length of one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@native
class TestNative:
    @pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
    def test_equals_the_composition_in_float64(self, sizes: tuple[int, ...]) -> None:
        given = problem(*sizes)
        assert relative(fused(*given), truth(*doubled(given))) < FLOAT32

    @pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
    def test_every_gradient_equals_the_composition_in_float64(self, sizes: tuple[int, ...]) -> None:
        given = problem(*sizes)
        got, true = gradients(fused, *given), gradients(truth, *doubled(given))
        for name, gradient in true.items():
            assert relative(got[name], gradient) < GRADIENT, name

    def test_without_orders_tokens_are_scanned_as_they_lie(self) -> None:
        xz, weights, _ = problem(2, 90, 24, 16, 2, 4, 2)
        in_place = torch.arange(90).repeat(2, 1)
        assert torch.equal(fused(xz, weights, None), fused(xz, weights, in_place))
        assert relative(fused(xz, weights, None), truth(*doubled((xz, weights, None)))) < FLOAT32

    @pytest.mark.parametrize("channels", [8, 16, 40])
    @pytest.mark.parametrize("count", [1, 2, 7, 16])
    def test_threads_change_nothing_but_the_rounding(
        self, count: int, channels: int, threads: Callable[[int], None]
    ) -> None:
        """More threads than blocks of channels: the sequence is cut and its parts are joined."""
        given = problem(1, 700, channels, 16, 1, 4, 1)
        true, true_gradients = truth(*doubled(given)), gradients(truth, *doubled(given))
        threads(count)
        assert relative(fused(*given), true) < FLOAT32
        for name, gradient in gradients(fused, *given).items():
            assert relative(gradient, true_gradients[name]) < GRADIENT, name

    def test_repeats_to_the_last_bit(self, threads: Callable[[int], None]) -> None:
        given = problem(2, 300, 40, 16, 1, 4, 3)
        threads(7)
        assert torch.equal(fused(*given), fused(*given))
        once, again = gradients(fused, *given), gradients(fused, *given)
        assert all(torch.equal(once[name], again[name]) for name in once)

    def test_half_precision_is_widened_inside_and_kept_outside(self) -> None:
        xz, weights, orders = problem(1, 60, 16, 16, 1, 4, 1)
        got = fused(xz.bfloat16(), weights, orders)
        assert got.dtype == torch.bfloat16
        assert relative(got, truth(*doubled((xz.bfloat16(), weights, orders)))) < 5e-3

    def test_a_value_that_is_not_a_number_is_not_hidden(self) -> None:
        xz, weights, _ = problem(1, 100, 16, 16, 1, 4, 1)
        xz[0, 40, 3] = math.nan
        got = fused(xz, weights, None)
        assert torch.isfinite(got[0, :40]).all()
        assert torch.isnan(got[0, 40]).all()  # x_proj carries it to every channel

    @pytest.mark.slow
    def test_is_a_well_formed_operator(self) -> None:
        xz, weights, orders = problem(2, 40, 5, 16, 1, 4, 2)
        assert orders is not None
        stacked = [torch.stack(part) for part in zip(*weights, strict=True)]
        tracked = [x.clone().requires_grad_() for x in stacked]
        index = orders.to(torch.int32)
        forward = torch.ops.segmamba.mamba_inner.default
        torch.library.opcheck(forward, (xz.clone().requires_grad_(), tracked, index, True))
        torch.library.opcheck(forward, (xz, stacked, None, False))
        out, states = forward(xz, stacked, index, True)
        arguments = (torch.randn_like(out), states, xz, stacked, index)
        torch.library.opcheck(torch.ops.segmamba.mamba_inner_backward.default, arguments)


@native
class TestFunctions:
    """exp, softplus and sigmoid of the kernels, against float64."""

    @staticmethod
    def evaluate(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        library = native_library()
        assert library is not None
        results = tuple(torch.empty_like(x) for _ in range(3))
        pointers = (ctypes.c_void_p(t.data_ptr()) for t in results)
        library.segmamba_functions(
            ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(x.numel()), *pointers
        )
        return results

    def test_agree_with_float64_over_the_whole_range(self) -> None:
        x = torch.linspace(-87, 87, 200_003)
        wide = x.double()
        # exp's argument is first multiplied by log2(e), so its last bit weighs |x| times as much.
        allowed = 3e-7 + 1e-7 * wide.abs()
        exact = (wide.exp(), torch.nn.functional.softplus(wide, threshold=1e9), wide.sigmoid())
        for got, true in zip(self.evaluate(x), exact, strict=True):
            assert ((got.double() / true - 1).abs() <= allowed).all()

    def test_small_arguments_lose_nothing(self) -> None:
        x = torch.linspace(-0.34, 0.34, 100_001)
        exp = self.evaluate(x)[0].double()
        assert (exp / x.double().exp() - 1).abs().max() < 2e-7
        assert self.evaluate(torch.zeros(1))[0].item() == 1.0

    def test_extremes_are_those_of_exp(self) -> None:
        x = torch.tensor([math.nan, math.inf, -math.inf, 200.0, -200.0])
        exp, softplus, sigmoid = (v.tolist() for v in self.evaluate(x))
        assert all(math.isnan(v[0]) for v in (exp, softplus, sigmoid))
        assert exp[1:] == [math.inf, 0.0, math.inf, 0.0]
        assert softplus[1:] == [math.inf, 0.0, 200.0, 0.0]
        assert sigmoid[1:] == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_other_backends_run_the_composition(backend: str) -> None:
    given = problem(1, 30, 6, 4, 1, 4, 2)
    assert relative(mamba_inner(*given, backend), truth(*doubled(given))) < FLOAT32


def test_directions_add_up() -> None:
    xz, weights, orders = problem(1, 50, 8, 8, 1, 4, 2)
    assert orders is not None
    both = mamba_inner(xz, weights, orders)
    each = [mamba_inner(xz, [weights[i]], orders[i : i + 1]) for i in range(2)]
    assert relative(both, each[0] + each[1]) < FLOAT32


@pytest.mark.parametrize("name", DirectionWeights._fields)
def test_a_wrong_weight_is_named(name: str) -> None:
    xz, weights, orders = problem(1, 10, 6, 4, 2, 4, 2)
    weights[1] = weights[1]._replace(**{name: torch.zeros(3, 3, 3)})
    with pytest.raises(ShapeError, match=f"{name} must be"):
        mamba_inner(xz, weights, orders)


def test_wrong_tokens_or_orders_are_refused() -> None:
    xz, weights, orders = problem(1, 10, 6, 4, 2, 4, 2)
    assert orders is not None
    with pytest.raises(ShapeError, match="xz must be"):
        mamba_inner(xz[0], weights, orders)
    with pytest.raises(ShapeError, match=r"orders must be \(2, 10\)"):
        mamba_inner(xz, weights, orders[:, :5])
    with pytest.raises(ShapeError, match="indices from 0 to 9, got 1 to 10"):
        mamba_inner(xz, weights, orders + 1)
