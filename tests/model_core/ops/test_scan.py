"""Every backend computes what the sequential float64 reference computes, forward and backward."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from model_core.errors import ShapeError
from model_core.ops import scan_order, selective_scan
from tests.model_core.ops.problems import relative, scan_problem

FLOAT32 = 2e-6
"""Relative error allowed in float32: a dozen roundings of 6e-8 along each decay."""
HALF = 5e-3
"""Likewise when results are rounded to bfloat16, which keeps 8 bits."""

LENGTHS = (1, 2, 31, 32, 127, 1024, 2500)


class TestForward:
    @pytest.mark.parametrize("length", LENGTHS)
    def test_equals_reference_at_every_length(self, backend: str, length: int) -> None:
        problem = scan_problem(length)
        got = selective_scan(**problem, backend=backend)
        assert relative(got, selective_scan(**problem, backend="reference")) < FLOAT32

    @pytest.mark.parametrize("channels", [1, 3, 16, 17, 40])
    def test_equals_reference_at_odd_channel_counts(self, backend: str, channels: int) -> None:
        problem = scan_problem(67, channels=channels)
        got = selective_scan(**problem, backend=backend)
        assert relative(got, selective_scan(**problem, backend="reference")) < FLOAT32

    @pytest.mark.parametrize("states", [1, 8, 16, 24])
    def test_equals_reference_at_any_state_count(self, backend: str, states: int) -> None:
        problem = scan_problem(67, states=states)
        got = selective_scan(**problem, backend=backend)
        assert relative(got, selective_scan(**problem, backend="reference")) < FLOAT32

    @pytest.mark.parametrize("groups", [1, 2, 6])
    def test_channels_may_share_projections_in_groups(self, backend: str, groups: int) -> None:
        problem = scan_problem(67, channels=6, groups=groups)
        got = selective_scan(**problem, backend=backend)
        assert relative(got, selective_scan(**problem, backend="reference")) < FLOAT32

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_result_has_the_dtype_of_u(self, backend: str, dtype: torch.dtype) -> None:
        problem = scan_problem(67, dtype=dtype)
        got = selective_scan(**problem, backend=backend)
        assert got.dtype == dtype
        bound = HALF if dtype == torch.bfloat16 else FLOAT32
        assert relative(got, selective_scan(**problem, backend="reference")) < bound

    @pytest.mark.parametrize("left_out", ["D", "z", "delta_bias"])
    def test_optional_arguments_may_be_left_out(self, backend: str, left_out: str) -> None:
        problem = scan_problem(67) | {left_out: None}
        got = selective_scan(**problem, backend=backend)
        assert relative(got, selective_scan(**problem, backend="reference")) < FLOAT32

    def test_steps_may_come_without_softplus(self, backend: str) -> None:
        problem = scan_problem(67) | {"delta_softplus": False, "delta_bias": None}
        problem["delta"] = problem["delta"].abs()
        got = selective_scan(**problem, backend=backend)
        assert relative(got, selective_scan(**problem, backend="reference")) < FLOAT32

    @pytest.mark.parametrize("step", [-90.0, -30.0, 30.0, 90.0])
    def test_extreme_steps_neither_overflow_nor_drift(self, backend: str, step: float) -> None:
        problem = scan_problem(67)
        problem["delta"] = torch.full_like(problem["delta"], step)
        got = selective_scan(**problem, backend=backend)
        assert relative(got, selective_scan(**problem, backend="reference")) < FLOAT32

    def test_constant_projections_equal_the_same_projections_spread_in_time(
        self, backend: str
    ) -> None:
        problem = scan_problem(67, batch=1, channels=1)
        constant = problem["B"][0, :, :1].t()
        spread = constant.t()[None].expand(1, -1, 67)
        got = selective_scan(**(problem | {"B": constant}), backend=backend)
        assert torch.equal(got, selective_scan(**(problem | {"B": spread}), backend=backend))

    @pytest.mark.slow
    def test_equals_reference_over_the_tokens_of_a_large_window(self, backend: str) -> None:
        problem = scan_problem(40_000, batch=1, channels=18)
        got = selective_scan(**problem, backend=backend)
        assert relative(got, selective_scan(**problem, backend="reference")) < FLOAT32


def test_reference_solves_the_recurrence_by_hand() -> None:
    """One channel, one state, no decay: the output is the running sum of Δ·B·u, times C."""
    u = torch.tensor([[[1.0, 2.0, 3.0]]])
    ones = torch.ones(1, 1, 3)
    y = selective_scan(u, 0.5 * ones, torch.zeros(1, 1), ones, 2 * ones, backend="reference")
    assert torch.allclose(y, torch.tensor([[[1.0, 3.0, 6.0]]]))


def test_reference_decays_exponentially() -> None:
    """After one impulse the state falls by exp(Δ A) a token."""
    u = torch.tensor([[[1.0, 0.0, 0.0]]])
    ones = torch.ones(1, 1, 3)
    y = selective_scan(u, ones, torch.full((1, 1), -0.7), ones, ones, backend="reference")
    assert torch.allclose(y, torch.exp(-0.7 * torch.arange(3.0))[None, None])


class TestBackward:
    @pytest.mark.parametrize(
        ("length", "channels", "states"),
        [*product((1, 2, 31, 97), (5, 17), (6, 16)), (1500, 5, 16)],
    )
    def test_every_gradient_equals_the_reference(
        self, backend: str, length: int, channels: int, states: int
    ) -> None:
        problem = scan_problem(length, channels=channels, states=states)
        got, true = (gradients(problem, name) for name in (backend, "reference"))
        for name, gradient in true.items():
            assert relative(got[name], gradient) < 1e-5, name

    def test_gradients_flow_through_any_layout(self, backend: str) -> None:
        """Token-major views, as the mixer hands them over, give the same gradients."""
        problem = scan_problem(97)
        flipped = {
            name: x.transpose(1, 2).contiguous().transpose(1, 2)
            if isinstance(x, torch.Tensor) and x.dim() == 3
            else x
            for name, x in problem.items()
        }
        got, true = gradients(flipped, backend), gradients(problem, backend)
        for name, gradient in true.items():
            assert relative(got[name], gradient) < FLOAT32, name


def gradients(problem: dict[str, torch.Tensor], backend: str) -> dict[str, torch.Tensor]:
    """The gradient of a random projection of the output by every tensor argument."""
    leaves = {
        name: x.detach().clone().requires_grad_()
        for name, x in problem.items()
        if isinstance(x, torch.Tensor)
    }
    out = selective_scan(**(problem | leaves), backend=backend)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((out * weight).sum(), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


class TestOrder:
    @pytest.mark.parametrize("direction", ["reverse", "inter_slice"])
    def test_scanning_by_index_equals_moving_the_tokens(self, backend: str, direction: str) -> None:
        problem = scan_problem(60)
        order = scan_order(direction, 60, 5)  # type: ignore[arg-type]
        assert order is not None
        moved = {
            name: x[..., order] if name in ("u", "delta", "B", "C", "z") else x
            for name, x in problem.items()
        }
        got = selective_scan(**problem, backend=backend, order=order)
        true = selective_scan(**moved, backend="reference")
        assert relative(got[..., order], true) < FLOAT32

    def test_gradients_follow_the_order(self, backend: str) -> None:
        problem = scan_problem(60) | {"order": scan_order("inter_slice", 60, 4)}
        leaf = problem["u"].clone().requires_grad_()
        results = []
        for name in (backend, "reference"):
            out = selective_scan(**(problem | {"u": leaf}), backend=name)
            results.append(torch.autograd.grad(F.silu(out).sum(), leaf)[0])
        assert relative(*results) < 1e-5


class TestBlocksOfTheTorchScan:
    """The states of a long sequence are never all in memory, and blocks hand them on exactly."""

    @pytest.mark.parametrize("states_per_block", [1, 2 * 5 * 16 * 16 * 3])
    @pytest.mark.parametrize("length", [48, 77, 100])
    def test_blocks_of_one_and_of_three_chunks_equal_the_reference(
        self, length: int, states_per_block: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("model_core.ops.scan_torch._BLOCK_STATES", states_per_block)
        problem = scan_problem(length)
        got = selective_scan(**problem, backend="torch")
        assert relative(got, selective_scan(**problem, backend="reference")) < FLOAT32
        found, true = (gradients(problem, name) for name in ("torch", "reference"))
        for name, gradient in true.items():
            assert relative(found[name], gradient) < 1e-5, name

    def test_double_precision_is_kept(self) -> None:
        problem = scan_problem(300, dtype=torch.float64)
        got = selective_scan(**problem, backend="torch")
        assert relative(got, selective_scan(**problem, backend="reference")) < 1e-14

    def test_autocast_changes_nothing(self) -> None:
        problem = scan_problem(60)
        true = selective_scan(**problem, backend="torch")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(selective_scan(**problem, backend="torch"), true)

    def test_gradients_under_autocast_are_those_without(self) -> None:
        problem = scan_problem(60)
        true = gradients(problem, "torch")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = gradients(problem, "torch")
        for name, gradient in true.items():
            assert relative(got[name], gradient) < 1e-6, name


class TestArguments:
    @pytest.mark.parametrize(
        ("name", "shape", "rule"),
        [
            ("u", (2, 5), "(batch, channels, length)"),
            ("delta", (2, 5, 9), "(2, 5, 8)"),
            ("A", (4, 16), "(5, states)"),
            ("B", (2, 16, 9), "(2, 16, 8)"),
            ("C", (2, 3, 16, 8), "multiple of G"),
            ("D", (4,), "(5,)"),
            ("z", (1, 5, 8), "(2, 5, 8)"),
            ("delta_bias", (1,), "(5,)"),
        ],
    )
    def test_a_wrong_shape_is_named_with_its_rule(
        self, name: str, shape: tuple[int, ...], rule: str
    ) -> None:
        problem = scan_problem(8) | {name: torch.zeros(shape)}
        with pytest.raises(ShapeError) as caught:
            selective_scan(**problem)
        assert f"{name} must be" in str(caught.value)
        assert rule in str(caught.value)

    def test_an_order_of_another_length_is_refused(self, backend: str) -> None:
        problem = scan_problem(8)
        with pytest.raises(ShapeError, match=r"order must be \(8,\), got \(7,\)"):
            selective_scan(**problem, backend=backend, order=torch.arange(7))

    @pytest.mark.parametrize("shift", [-1, 1])
    def test_an_order_that_points_outside_is_refused(self, backend: str, shift: int) -> None:
        problem = scan_problem(8)
        with pytest.raises(ShapeError, match="indices from 0 to 7"):
            selective_scan(**problem, backend=backend, order=torch.arange(8) + shift)
