"""The native kernels as PyTorch operators: registered right, traceable, clear about limits."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from model_core.errors import BackendError, KernelMemoryError, SegMambaError
from model_core.ops import available_backends, causal_conv1d, layout, selective_scan
from tests.model_core.ops.problems import relative, scan_problem

pytestmark = pytest.mark.skipif(
    available_backends()["native"] != "available", reason="the native kernels are not built"
)

OPTIONAL = ("D", "z", "delta_bias")


def operands(dtype: torch.dtype = torch.float32, *, left_out: tuple[str, ...] = ()) -> list[Any]:
    """The leading arguments of ``segmamba::selective_scan``, each a leaf that wants a gradient."""
    problem = scan_problem(40, channels=6, groups=2, dtype=dtype)
    names = ("u", "delta", "A", "B", "C", *OPTIONAL)
    return [None if n in left_out else problem[n].requires_grad_() for n in names]


@pytest.mark.slow  # the first of them imports PyTorch's compiler
class TestOpcheck:
    """``torch.library.opcheck``: schema, no aliasing, fake kernel, autograd, tracing."""

    @pytest.mark.parametrize("left_out", [(), ("z",), OPTIONAL])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_scan(self, left_out: tuple[str, ...], dtype: torch.dtype) -> None:
        arguments = (*operands(dtype, left_out=left_out), True, None, True)
        torch.library.opcheck(torch.ops.segmamba.selective_scan, arguments)

    def test_scan_in_an_order_of_tokens_first_memory(self) -> None:
        arguments = operands()
        for i in (0, 1, 6):
            rows = arguments[i].detach().transpose(1, 2).contiguous()
            arguments[i] = rows.transpose(1, 2).requires_grad_()
        order = torch.arange(40).flip(0)
        torch.library.opcheck(torch.ops.segmamba.selective_scan, (*arguments, True, order, True))

    @pytest.mark.parametrize("left_out", [(), OPTIONAL])
    def test_gradient_of_the_scan(self, left_out: tuple[str, ...]) -> None:
        arguments = [x if x is None else x.detach() for x in operands(left_out=left_out)]
        out, states = torch.ops.segmamba.selective_scan(*arguments, True, None, True)
        torch.library.opcheck(
            torch.ops.segmamba.selective_scan_backward, (out, *arguments, True, None, states)
        )

    @pytest.mark.parametrize("with_bias", [True, False])
    def test_convolution_and_its_gradient(self, with_bias: bool) -> None:
        x, weight = torch.randn(2, 6, 40), torch.randn(6, 4)
        bias = torch.randn(6) if with_bias else None
        order = torch.arange(40).flip(0)
        torch.library.opcheck(
            torch.ops.segmamba.causal_conv1d_backward, (x, x.clone(), weight, bias, True, order)
        )
        leaves = [v if v is None else v.requires_grad_() for v in (x, weight, bias)]
        torch.library.opcheck(torch.ops.segmamba.causal_conv1d, (*leaves, True, order))


def convolve_and_scan(problem: dict[str, Any], weight: torch.Tensor) -> torch.Tensor:
    u = causal_conv1d(problem["u"], weight, silu=True, backend="native")
    return selective_scan(**(problem | {"u": u}), backend="native")


class TestTracing:
    @pytest.mark.slow
    @pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
    def test_compiles_to_one_graph_with_the_same_result_and_gradient(self, compiler: str) -> None:
        torch._dynamo.reset()
        problem, weight = scan_problem(40), torch.randn(5, 4)
        compiled = torch.compile(convolve_and_scan, fullgraph=True, backend=compiler)
        results = []
        for function in (convolve_and_scan, compiled):
            leaf = problem["u"].clone().requires_grad_()
            out = function(problem | {"u": leaf}, weight)
            results.append((out, *torch.autograd.grad(out.square().sum(), leaf)))
        for got, true in zip(*reversed(results), strict=True):
            assert torch.equal(got, true)
            assert got.stride() == true.stride()

    @pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
    def test_runs_where_no_gradient_is_recorded(self, mode: Any) -> None:
        problem, weight = scan_problem(40), torch.randn(5, 4)
        true = convolve_and_scan(problem, weight)
        with mode():
            assert torch.equal(convolve_and_scan(problem, weight), true)

    def test_autocast_changes_nothing(self) -> None:
        problem, weight = scan_problem(40), torch.randn(5, 4)
        true = convolve_and_scan(problem, weight)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(convolve_and_scan(problem, weight), true)


class TestLayouts:
    @pytest.mark.parametrize("length", [1, 15, 16, 17, 300])
    @pytest.mark.parametrize("channels", [1, 3, 16, 33])
    def test_transposing_moves_every_value_to_its_place(
        self, length: int, channels: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(layout, "_FEW", 0)
        source = torch.randn(2, channels + 2, length + 3)[:, 1:-1, 2:-1]  # rows apart, unaligned
        target = torch.full((2, length, channels + 1), -7.0)
        layout.transpose(source, target[..., :channels])
        assert torch.equal(target[..., :channels], source.transpose(1, 2))
        assert (target[..., channels:] == -7).all()

    def test_the_result_lies_in_memory_as_u_does(self) -> None:
        problem = scan_problem(40)
        assert selective_scan(**problem, backend="native").is_contiguous()
        tokens_first = problem["u"].transpose(1, 2).contiguous().transpose(1, 2)
        out = selective_scan(**(problem | {"u": tokens_first}), backend="native")
        assert out.transpose(1, 2).is_contiguous()

    @pytest.mark.parametrize("groups", [1, 2])
    def test_scanning_in_parts_gives_the_same_result_and_gradients(
        self, groups: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        results = []
        for tile in (2**25, 1):
            monkeypatch.setattr(layout, "_FEW", 0)
            monkeypatch.setattr("model_core.ops.scan_native._TILE_BYTES", tile)
            monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
            problem = scan_problem(40, channels=50, groups=groups)
            leaves = {n: x.requires_grad_() for n, x in problem.items() if n != "delta_softplus"}
            out = selective_scan(**problem, backend="native")
            found = torch.autograd.grad(out.square().sum(), list(leaves.values()))
            results.append((out, *found))
        for got, true in zip(*results, strict=True):
            assert relative(got, true) < 2e-6


class TestLimits:
    @pytest.mark.slow
    def test_a_scan_does_not_load_the_compiler(self) -> None:
        """A program that only segments should not wait a second for what it never uses."""
        code = (
            "import sys, torch; from model_core.ops import causal_conv1d, selective_scan;"
            "x = torch.rand(1, 4, 9); B = torch.rand(1, 2, 9);"
            "causal_conv1d(x, torch.rand(4, 3), backend='native');"
            "selective_scan(x, x, -torch.rand(4, 2), B, B, backend='native');"
            "sys.exit('torch._dynamo' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

    def test_a_second_derivative_is_refused(self) -> None:
        problem = scan_problem(8)
        problem["u"].requires_grad_()
        out = selective_scan(**problem, backend="native")
        (grad,) = torch.autograd.grad(out.square().sum(), problem["u"], create_graph=True)
        with pytest.raises(BackendError, match="backend='reference'"):
            grad.sum().backward()

    def test_a_gradient_without_kept_states_is_refused(self) -> None:
        out, _ = torch.ops.segmamba.selective_scan(*operands(), True, None, False)
        with pytest.raises(BackendError, match="keep"):
            out.sum().backward()

    def test_a_kernel_without_memory_raises_an_error_of_this_project_with_a_way_out(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Exhausted:
            @staticmethod
            def segmamba_transpose(_: object) -> int:
                return 2

        monkeypatch.setattr(layout, "_FEW", 0)
        monkeypatch.setattr(layout, "kernels", Exhausted)
        with pytest.raises(KernelMemoryError, match="smaller window") as caught:
            layout.transpose(torch.zeros(1, 2, 3), torch.zeros(1, 3, 2))
        assert isinstance(caught.value, SegMambaError)
