"""The tests of the Triton scan that need Triton, run by `test_scan_triton` in Triton's environment.

With TRITON_INTERPRET=1 the kernels run on the CPU; the code that launches them is that of a GPU.
Truth is the float64 reference on the same, already rounded, arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from model_core.errors import BackendError
from model_core.ops import (
    SCAN_DIRECTIONS,
    available_backends,
    check_backend,
    resolve_backend,
    scan_order,
    selective_scan,
)
from model_core.ops.mamba_inner import DirectionWeights, mamba_inner
from tests.model_core.ops.problems import relative, scan_problem

FLOAT32 = 2e-6
"""Relative error (L2) allowed: a dozen roundings of 6e-8 along each decay, forward and back."""
BFLOAT16 = 5e-3
"""Likewise where results are rounded to 8 bits; the interpreter cuts off what a GPU rounds."""
FLOAT16 = 6e-4
"""Likewise to 11 bits."""
BOUNDS = {torch.float32: FLOAT32, torch.float64: FLOAT32, torch.bfloat16: BFLOAT16}
BOUNDS |= {torch.float16: FLOAT16}

Results = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 8 tokens, two replays each, so that a few tokens are several chunks."""
    monkeypatch.setattr("model_core.ops.scan_triton_plan._CHUNK", (8, 8))


def results(problem: dict[str, Any], backend: str) -> Results:
    """The output, and the gradient of a random projection of it by every tensor argument."""
    leaves = {
        name: x.detach().requires_grad_()
        for name, x in problem.items()
        if isinstance(x, torch.Tensor) and name != "order"
    }
    out = selective_scan(**(problem | leaves), backend=backend)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    found = torch.autograd.grad((out * weight).sum(), list(leaves.values()))
    return {"out": out, **dict(zip(leaves, found, strict=True))}


def compare(problem: dict[str, Any], bound: float = FLOAT32) -> None:
    """Bind the output and every gradient to the reference's."""
    got = results(problem, "triton")
    wide = {
        name: x.double() if isinstance(x, torch.Tensor) and name != "order" else x
        for name, x in problem.items()
    }
    for name, true in results(wide, "reference").items():
        assert relative(got[name], true) < bound, name
        assert got[name].shape == true.shape, name


class TestValues:
    @pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 7), (1, 16), (2, 19)])
    def test_output_and_gradients_equal_the_reference(self, batch: int, length: int) -> None:
        compare(scan_problem(length, batch=batch))

    @pytest.mark.parametrize("direction", SCAN_DIRECTIONS)
    def test_every_order_is_read_and_written_in_place(self, direction: Any) -> None:
        compare(scan_problem(18, batch=1) | {"order": scan_order(direction, 18, 3)})

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_results_have_the_dtype_of_their_arguments(self, dtype: torch.dtype) -> None:
        problem = scan_problem(9, batch=1, dtype=dtype)
        compare(problem, BOUNDS[dtype])
        for name, got in results(problem, "triton").items():
            assert got.dtype == problem["u" if name == "out" else name].dtype, name

    @pytest.mark.parametrize(
        "left_out", [("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")]
    )
    def test_optional_arguments_may_be_left_out(self, left_out: tuple[str, ...]) -> None:
        problem = scan_problem(13, batch=1)
        compare({name: x for name, x in problem.items() if name not in left_out})

    def test_steps_may_come_without_softplus(self) -> None:
        problem = scan_problem(13, batch=1) | {"delta_softplus": False, "delta_bias": None}
        compare(problem | {"delta": problem["delta"].abs()})

    @pytest.mark.parametrize("step", [-30.0, 30.0])
    def test_extreme_steps_neither_overflow_nor_drift(self, step: float) -> None:
        problem = scan_problem(13, batch=1)
        compare(problem | {"delta": torch.full_like(problem["delta"], step)})

    @pytest.mark.parametrize(("channels", "groups"), [(1, None), (35, None), (6, 2), (6, 6)])
    def test_channels_fill_blocks_and_groups_or_do_not(
        self, channels: int, groups: int | None
    ) -> None:
        compare(scan_problem(9, batch=1, channels=channels, groups=groups))

    def test_projections_may_be_constant_in_time(self) -> None:
        problem = scan_problem(9, batch=1, channels=3)
        draw = torch.Generator().manual_seed(0)
        constant = {name: torch.randn(3, 16, generator=draw) for name in "BC"}
        compare(problem | constant)

    @pytest.mark.parametrize("states", [1, 5, 24])
    def test_any_number_of_states(self, states: int) -> None:
        compare(scan_problem(9, batch=1, states=states))

    def test_tokens_first_memory_gives_the_same(self) -> None:
        problem = scan_problem(13, batch=1)
        turned = {
            name: x.transpose(1, 2).contiguous().transpose(1, 2)
            for name, x in problem.items()
            if isinstance(x, torch.Tensor) and x.dim() == 3
        }
        got, true = results(problem | turned, "triton"), results(problem, "triton")
        for name, value in true.items():
            assert torch.equal(got[name], value), name
        assert got["out"].stride() == turned["u"].stride()


class TestChunks:
    def test_chunks_of_the_usual_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        compare(scan_problem(71, batch=1))

    def test_more_chunks_than_are_chained_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("model_core.ops.scan_triton_plan._CHUNK", (4, 4))
        compare(scan_problem(37, batch=1))

    @pytest.mark.parametrize("direction", ["forward", "inter_slice"])
    def test_a_gradient_with_little_scratch_works_on_one_chunk_at_a_time(
        self, direction: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        problem = scan_problem(12) | {"order": scan_order(direction, 12, 3)}
        true = results(problem, "triton")
        monkeypatch.setattr("model_core.ops.scan_triton_plan._SCRATCH_BYTES", 1)
        for name, value in results(problem, "triton").items():
            assert torch.equal(value, true[name]), name


class TestOperator:
    def test_it_is_registered_as_pytorch_wants_it(self) -> None:
        """``torch.library.opcheck``: schema, no aliasing, fake kernel, autograd, tracing."""
        problem = scan_problem(5, batch=1, channels=2, groups=1)
        names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
        leaves = [problem[name].requires_grad_() for name in names]
        order = torch.arange(5, dtype=torch.int32).flip(0)
        operators = torch.ops.segmamba
        torch.library.opcheck(operators.selective_scan_triton, (*leaves, True, order))
        plain = [x.detach() for x in leaves]
        plain[-2] = None  # without a gate
        out, *kept = operators.selective_scan_triton(*plain, True, None)
        arguments = (out, *kept, *plain, True, None)
        torch.library.opcheck(operators.selective_scan_triton_backward, arguments)

    def test_a_second_derivative_is_refused(self) -> None:
        problem = scan_problem(3, batch=1, channels=1)
        problem["u"].requires_grad_()
        out = selective_scan(**problem, backend="triton")
        (grad,) = torch.autograd.grad(out.square().sum(), problem["u"], create_graph=True)
        with pytest.raises(BackendError, match="backend='reference'"):
            grad.sum().backward()

    def test_too_many_states_are_refused(self) -> None:
        problem = scan_problem(1, batch=1, channels=1, states=257)
        with pytest.raises(BackendError, match="up to 256 states, got 257"):
            selective_scan(**problem, backend="triton")

    def test_a_kernel_that_triton_refuses_is_an_error_with_a_way_out(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("model_core.ops.scan_triton_launch._CHAIN_BLOCK", 3)
        report = check_backend("triton")
        assert not report.passed
        assert "Use backend='torch'" in report.problem


class TestChoice:
    def test_it_is_available_but_a_cpu_never_takes_it_by_itself(self) -> None:
        assert available_backends()["triton"] == "available"
        assert resolve_backend("cpu", "triton") == "triton"
        assert resolve_backend("cpu") in ("native", "torch")

    def test_the_doctor_s_check_passes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        report = check_backend("triton")
        assert report.passed, report.problem


def weights(channels: int, states: int, rank: int) -> Iterator[torch.Tensor]:
    draw = torch.Generator().manual_seed(channels)
    shapes = ((channels, 4), (channels,), (rank + 2 * states, channels), (channels, rank))
    for shape in (*shapes, (channels,)):
        yield torch.randn(shape, generator=draw) / 2
    yield -torch.rand(channels, states, generator=draw) * 4
    yield torch.randn(channels, generator=draw)


def test_a_whole_mamba_block_in_three_directions() -> None:
    """SegMamba's three orders at once, through the operations that a GPU would run."""
    xz = torch.randn(1, 12, 10, generator=torch.Generator().manual_seed(0))
    orders = [scan_order(name, 12, 3) for name in SCAN_DIRECTIONS]
    stacked = torch.stack([torch.arange(12) if x is None else x for x in orders])
    directions = [DirectionWeights(*weights(5, 4, 2)) for _ in orders]
    found = {}
    for backend in ("triton", "reference"):
        leaf = xz.clone().requires_grad_()
        out = mamba_inner(leaf, directions, stacked, backend)
        found[backend] = (out, *torch.autograd.grad(out.square().sum(), leaf))
    for got, true in zip(found["triton"], found["reference"], strict=True):
        assert relative(got, true) < FLOAT32
