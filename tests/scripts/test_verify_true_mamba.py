"""scripts/gpu/verify_true_mamba.py: SUCCESS only for compiled code that ran and is right.

No GPU is needed: this project's PyTorch scan stands in for mamba-ssm's function, and a module with
the specification of a shared library for its extension.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from model_core.ops.scan import selective_scan
from scripts.gpu import verify_true_mamba
from scripts.gpu.verify_true_mamba import SUCCESS, is_compiled, verify


def kernel() -> ModuleType:
    """A fresh module with the specification of one that was loaded from a shared library."""
    import _ctypes

    module = ModuleType("selective_scan_cuda")
    module.__spec__ = _ctypes.__spec__
    module.fwd = lambda: None  # type: ignore[attr-defined]
    module.bwd = lambda: None  # type: ignore[attr-defined]
    return module


class _Touch(torch.autograd.Function):
    """Enter the stand-in kernel once each way, changing nothing; `spoil` scales the gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, module: ModuleType, spoil: float) -> torch.Tensor:
        ctx.module, ctx.spoil = module, spoil
        module.fwd()
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        ctx.module.bwd()
        return grad * ctx.spoil, None, None


def scan_through(module: ModuleType, *, spoil: float = 1.0) -> Callable[..., Any]:
    def scan(*, u: torch.Tensor, **arguments: Any) -> Any:
        return selective_scan(_Touch.apply(u, module, spoil), **arguments, backend="torch")

    return scan


def plain_scan(**arguments: Any) -> Any:
    return selective_scan(**arguments, backend="torch")


def test_a_right_kernel_that_ran_both_ways_is_a_success() -> None:
    module = kernel()
    verdict = verify(scan_through(module), module, "cpu")
    assert verdict.code == 0
    assert verdict.lines[-1] == SUCCESS == "SUCCESS: Real mamba-ssm CUDA extension is active."
    assert set(verdict.errors) == {"output", "u", "delta", "A", "B", "C", "D", "z", "delta_bias"}
    assert max(verdict.errors.values()) < 1e-5


def test_the_counters_are_taken_out_again() -> None:
    module = kernel()
    before = (module.fwd, module.bwd)
    verify(scan_through(module), module, "cpu")
    assert (module.fwd, module.bwd) == before


def test_a_right_result_of_another_scan_is_no_success() -> None:
    """mamba-ssm falls back to plain PyTorch in some versions: right, slow, and not the kernel."""
    verdict = verify(plain_scan, kernel(), "cpu")
    assert verdict.code == 1
    assert "another scan ran" in verdict.lines[0]
    assert SUCCESS not in verdict.lines


def test_a_module_written_in_python_is_no_kernel() -> None:
    module = ModuleType("selective_scan_cuda")
    module.__spec__ = importlib.util.find_spec("json")
    assert not is_compiled(module)
    verdict = verify(plain_scan, module, "cpu")
    assert verdict.code == 1
    assert "not a compiled extension" in verdict.lines[0]


def test_a_wrong_gradient_is_named() -> None:
    module = kernel()
    verdict = verify(scan_through(module, spoil=1.01), module, "cpu")
    assert verdict.code == 1
    assert verdict.lines[-1] == "FAILURE: the kernel ran and is wrong in: u."


def test_a_gradient_that_is_no_number_is_wrong() -> None:
    module = kernel()
    assert verify(scan_through(module, spoil=float("nan")), module, "cpu").code == 1


def test_a_kernel_for_another_gpu_is_a_failure_with_the_way_out() -> None:
    def no_image(**_: Any) -> Any:
        raise RuntimeError("CUDA error: no kernel image is available\nand much more")

    verdict = verify(no_image, kernel(), "cpu")
    assert verdict.code == 1
    assert verdict.lines[0].endswith("no kernel image is available")
    assert "enable_true_mamba.sh" in verdict.lines[1]


class TestThisMachine:
    """`main` where something is missing."""

    def test_without_a_gpu_there_is_nothing_to_verify(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert verify_true_mamba.main() == 2
        said = capsys.readouterr().out
        assert torch.__version__ in said
        assert "No CUDA device" in said
        assert "SUCCESS" not in said

    def test_a_gpu_without_the_package_is_told_how_to_build_it(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(verify_true_mamba, "mamba_ssm_function", lambda: (None, "absent"))
        assert verify_true_mamba.main() == 2
        said = capsys.readouterr().out
        assert "absent" in said
        assert "enable_true_mamba.sh" in said
