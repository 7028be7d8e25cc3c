"""Who decides which backend runs, and what is said when it cannot."""

from __future__ import annotations

import pytest
import torch

from model_core.errors import BackendError, OptionError
from model_core.ops import (
    BACKEND_VARIABLE,
    available_backends,
    check_backend,
    native_library,
    resolve_backend,
    scan_mamba_ssm,
    selective_scan,
    use_backend,
)
from model_core.ops.backends import CUDA_KERNELS, native_beside_scan
from model_core.ops.scan_inputs import check_inputs
from model_core.ops.scan_reference import scan_reference
from tests.model_core.ops.problems import relative, scan_problem


class TestChoice:
    def test_argument_beats_context_beats_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(BACKEND_VARIABLE, "reference")
        assert resolve_backend("cpu") == "reference"
        with use_backend("torch"):
            assert resolve_backend("cpu") == "torch"
            assert resolve_backend("cpu", "reference") == "reference"
        assert resolve_backend("cpu") == "reference"

    def test_native_is_taken_on_a_cpu_when_it_is_built(self) -> None:
        built = available_backends()["native"] == "available"
        assert resolve_backend("cpu") == ("native" if built else "torch")

    def test_without_the_library_the_torch_scan_runs_and_the_reason_is_given(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(native_library, "_load", lambda: (None, "not built", ""))
        for cached in (native_library.native_library, native_library.native_problem):
            cached.cache_clear()
        try:
            assert resolve_backend("cpu") == "torch"
            assert available_backends()["native"] == "not built"
            with pytest.raises(BackendError, match="not built"):
                resolve_backend("cpu", "native")
        finally:
            monkeypatch.undo()
            for cached in (native_library.native_library, native_library.native_problem):
                cached.cache_clear()

    def test_an_unknown_name_lists_the_known_ones(self) -> None:
        with pytest.raises(OptionError, match="mamba-ssm, triton, native, torch, reference"):
            resolve_backend("cpu", "cuda")
        with pytest.raises(OptionError), use_backend("mock"):
            pass

    @pytest.mark.parametrize("name", CUDA_KERNELS)
    @pytest.mark.parametrize("by", ["context", "environment"])
    def test_a_scan_for_cuda_leaves_the_rest_of_a_cpus_work_to_its_best(
        self, monkeypatch: pytest.MonkeyPatch, name: str, by: str
    ) -> None:
        monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
        expected = native_beside_scan()
        if by == "environment":
            monkeypatch.setenv(BACKEND_VARIABLE, name)
        with use_backend(name if by == "context" else None):
            assert native_beside_scan() is expected
            with pytest.raises(BackendError, match="needs CUDA tensors"):
                resolve_backend("cpu")

    @pytest.mark.parametrize("name", ["torch", "reference"])
    def test_another_choice_holds_for_the_rest_too(self, name: str) -> None:
        with use_backend(name):
            assert not native_beside_scan()

    def test_mamba_ssm_is_refused_for_cpu_tensors(self) -> None:
        with pytest.raises(BackendError, match="CUDA"):
            resolve_backend("cpu", "mamba-ssm")


@pytest.mark.parametrize("name", ["native", "torch", "reference"])
def test_check_passes_for_every_available_backend(name: str) -> None:
    if available_backends()[name] != "available":  # type: ignore[index]
        pytest.skip("not available here")
    report = check_backend(name)
    assert report.passed
    assert report.build == (native_library.native_build() if name == "native" else "")


def test_check_sees_a_backend_that_computes_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("model_core.ops.scan.scan_torch", lambda inputs: 1.001 * inputs.u)
    report = check_backend("torch")
    assert not report.passed
    assert "differ" in report.problem


def test_check_reports_a_backend_that_cannot_run() -> None:
    report = check_backend("mamba-ssm")
    assert not report.passed
    assert "CUDA" in report.problem


class TestMambaSsmContract:
    """The call follows mamba-ssm's documented signature, shown with a stand-in on the CPU."""

    def test_arguments_arrive_as_selective_scan_fn_documents_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def selective_scan_fn(  # the documented signature, and its assertions
            u: torch.Tensor,
            delta: torch.Tensor,
            A: torch.Tensor,
            B: torch.Tensor,
            C: torch.Tensor,
            D: torch.Tensor | None = None,
            z: torch.Tensor | None = None,
            delta_bias: torch.Tensor | None = None,
            delta_softplus: bool = False,
            return_last_state: bool = False,
        ) -> torch.Tensor:
            assert u.shape == delta.shape
            assert all(x.stride(-1) == 1 for x in (u, delta, B, C))
            assert B.dim() == C.dim() == 4
            assert all(x is None or x.dtype == torch.float32 for x in (A, D, delta_bias))
            assert not return_last_state
            return scan_reference(
                check_inputs(
                    u, delta, A, B, C, optional=(D, z, delta_bias), delta_softplus=delta_softplus
                )
            )

        monkeypatch.setattr(scan_mamba_ssm, "mamba_ssm_function", lambda: (selective_scan_fn, ""))
        monkeypatch.setattr("model_core.ops.scan.resolve_backend", lambda *_: "mamba-ssm")
        problem = scan_problem(40)
        order = torch.arange(40).flip(0)
        true = selective_scan(**problem, order=order)
        monkeypatch.undo()
        assert relative(selective_scan(**problem, backend="reference", order=order), true) < 1e-6

    def test_a_missing_package_is_an_error_with_the_command_that_installs_it(self) -> None:
        if available_backends()["mamba-ssm"] == "available":
            pytest.skip("mamba-ssm works here")
        problem = scan_problem(4)
        inputs = check_inputs(
            *(problem[name] for name in ("u", "delta", "A", "B", "C")),
            optional=(None, None, None),
            delta_softplus=False,
        )
        with pytest.raises(BackendError, match="MAMBA_KEEP_CUDA_BUILD=TRUE pip install"):
            scan_mamba_ssm.scan_mamba_ssm(inputs)
