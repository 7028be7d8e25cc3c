"""`segmamba doctor`: true about what runs, and helpful about what does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import Result

from model_core.cli import doctor
from model_core.ops import BackendCheck
from model_core.ops.backends import CUDA_KERNELS

Run = Callable[..., Result]


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any bundle at hand serves as the default model."""
    monkeypatch.setattr("model_core.checkpoints.DEFAULT_MODEL", "tiny")


def findings(segmamba: Run) -> tuple[dict[str, object], int]:
    done = segmamba("doctor", "--json")
    return json.loads(done.stdout), done.exit_code


@pytest.mark.usefixtures("healthy")
def test_a_sound_machine_is_reported_and_every_usable_backend_checked(segmamba: Run) -> None:
    found, code = findings(segmamba)
    assert code == 0
    assert found["healthy"] is True
    backends = found["backends"]
    assert isinstance(backends, dict)
    usable = {name for name, state in backends.items() if state == "available"}
    checks = found["checks"]
    assert isinstance(checks, list)
    assert {check["backend"] for check in checks} == usable
    assert all(check["passed"] for check in checks)
    assert "torch" in usable


@pytest.mark.usefixtures("healthy")
def test_the_backend_that_is_forced_is_the_one_reported(
    segmamba: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMAMBA_SCAN_BACKEND", "reference")
    found, _ = findings(segmamba)
    assert found["selected"] == {"cpu": "reference"}


def test_a_missing_default_model_is_a_problem_with_a_way_out(
    segmamba: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_core.checkpoints.DEFAULT_MODEL", "absent")
    done = segmamba("doctor")
    assert done.exit_code == 1
    assert "absent" in done.stdout
    assert "SEGMAMBA_MODELS" in done.stdout


@pytest.mark.usefixtures("healthy")
def test_a_backend_that_computes_wrong_is_a_problem(
    segmamba: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(name: str, device: str = "cpu") -> BackendCheck:
        return BackendCheck(
            backend=name, passed=False, forward_error=0.5, backward_error=0.5, problem="it differs"
        )

    monkeypatch.setattr("model_core.ops.check_backend", wrong)
    found, code = findings(segmamba)
    assert code == 1
    assert "it differs" in str(found["problems"])


@pytest.mark.usefixtures("healthy")
def test_without_native_kernels_the_slower_scan_is_said_aloud(
    segmamba: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {"mamba-ssm": "missing", "native": "not built", "torch": "available"}
    monkeypatch.setattr("model_core.ops.available_backends", lambda: states)
    monkeypatch.setattr("model_core.ops.resolve_backend", lambda *_: "torch")
    done = segmamba("doctor")
    assert done.exit_code == 0
    assert "slower" in done.stdout
    assert "C++ compiler" in done.stdout


def test_the_gpu_command_survives_a_shell() -> None:
    """Unquoted, ``>=2.2.5`` would be a redirection."""
    import shlex

    words = shlex.split(doctor.KERNEL_COMMAND)
    assert "mamba-ssm>=2.2.5" in words
    assert ">" not in doctor.KERNEL_COMMAND.replace("'mamba-ssm>=", "").replace("d>=1", "d1")


def test_missing_gpu_packages_are_called_missing(segmamba: Run) -> None:
    found, _ = findings(segmamba)
    versions = found["versions"]
    assert isinstance(versions, dict)
    assert set(doctor.GPU_PACKAGES) <= set(versions)
    assert versions["python"].count(".") == 2


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with one GPU as PyTorch and nvidia-smi would show it."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU-abc-1, 45, 12'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    properties = SimpleNamespace(name="Test GPU", major=9, minor=0, uuid="abc-1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: properties)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (3 * 2**30, 8 * 2**30))
    states = {"mamba-ssm": "not installed", "native": "available", "torch": "available"}
    monkeypatch.setattr("model_core.ops.available_backends", lambda: states)


@pytest.mark.usefixtures("healthy", "gpu")
def test_a_gpu_is_shown_with_name_memory_temperature_and_use(segmamba: Run) -> None:
    found, code = findings(segmamba)
    assert code == 0
    assert found["gpus"] == [
        {
            "device": "cuda:0",
            "name": "Test GPU",
            "capability": "9.0",
            "memory_free_gib": "3.0",
            "memory_total_gib": "8.0",
            "temperature_c": "45",
            "use_percent": "12",
        }
    ]


@pytest.mark.usefixtures("healthy", "gpu")
def test_the_triton_scan_is_checked_on_the_gpu_that_runs_it(
    segmamba: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def check(name: str, device: str = "cpu") -> BackendCheck:
        asked[name] = device
        return BackendCheck(
            backend=name, passed=True, forward_error=1e-7, backward_error=1e-7, problem=""
        )

    states = {"mamba-ssm": "not installed", "triton": "available", "native": "available"}
    monkeypatch.setattr("model_core.ops.available_backends", lambda: states)
    monkeypatch.setattr(
        "model_core.ops.resolve_backend", lambda on, *_: "triton" if on == "cuda" else "native"
    )
    monkeypatch.setattr("model_core.ops.check_backend", check)
    found, _ = findings(segmamba)
    assert asked == {"triton": "cuda", "native": "cpu"}
    assert "The GPU runs the Triton scan" in str(found["advice"])


@pytest.mark.usefixtures("healthy", "gpu")
@pytest.mark.parametrize("name", CUDA_KERNELS)
def test_a_named_scan_for_cuda_is_asked_of_the_gpu_only(
    segmamba: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SEGMAMBA_SCAN_BACKEND", name)
    monkeypatch.setattr("model_core.ops.backends.mamba_ssm_function", lambda: (print, ""))
    monkeypatch.setattr(
        "model_core.ops.backends.triton_problem", lambda on: "" if on == "cuda" else "CUDA only"
    )
    found, code = findings(segmamba)
    assert (found["problems"], code) == ([], 0)
    assert found["selected"] == {"cuda": name}


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("name", CUDA_KERNELS)
def test_without_a_gpu_a_named_scan_for_cuda_is_a_problem(
    segmamba: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SEGMAMBA_SCAN_BACKEND", name)
    found, code = findings(segmamba)
    assert code == 1
    assert f"The scan backend '{name}' cannot run on cpu" in str(found["problems"])


@pytest.mark.usefixtures("healthy", "gpu")
def test_a_gpu_without_its_kernel_is_told_how_to_get_it(segmamba: Run) -> None:
    found, _ = findings(segmamba)
    assert doctor.KERNEL_COMMAND in str(found["advice"])
    assert "KEEP_CUDA_BUILD" in doctor.KERNEL_COMMAND


def test_a_silent_nvidia_smi_costs_only_its_own_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert doctor._nvidia_smi() == {}


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    ("features", "named", "expected"),
    [
        ({"avx512_bf16": True}, "", "bfloat16 (avx512_bf16)"),
        ({"amx_bf16": True, "avx512_bf16": True}, "auto", "bfloat16 (amx_bf16)"),
        ({"avx2": True}, "", "float32"),
        ({"avx2": True}, "bfloat16", "bfloat16 (emulated: slower)"),
        ({"avx512_bf16": True}, "float32", "float32"),
    ],
)
def test_one_line_says_what_is_computed_how_and_how_to_switch(
    segmamba: Run,
    monkeypatch: pytest.MonkeyPatch,
    features: dict[str, bool],
    named: str,
    expected: str,
) -> None:
    monkeypatch.setattr("model_core.precision.cpu_features", lambda: features)
    monkeypatch.setenv("SEGMAMBA_PRECISION", named)
    findings = doctor.Findings()
    doctor._examine_precision(findings)
    assert findings.precision == {"cpu": expected}
    line = doctor.precision_line("cpu", expected)
    assert f"convolutions: {expected}, Mamba and norms: float32" in line
    other = "float32" if expected.startswith("bfloat16") else "bfloat16"
    assert f"SEGMAMBA_PRECISION={other}" in line
    assert "\n" not in line


@pytest.mark.usefixtures("healthy")
def test_the_doctor_shows_what_of_the_machine_may_be_used(
    segmamba: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_core.cpu.usable_cpus", lambda *_: 3)
    monkeypatch.setattr("model_core.cpu.memory_limit_bytes", lambda *_: 5 * 2**30)
    monkeypatch.setattr("model_core.cpu.cpu_features", lambda *_: {"avx2": True, "avx512": False})
    done = segmamba("doctor")
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line.strip())
    assert rows["usable_cpus"].strip() == "3"
    assert rows["memory_limit_gib"].strip() == "5.0"
    assert rows["instructions"].strip() == "avx2"
    assert "convolutions: " in done.stdout


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    ("name", "value"), [("SEGMAMBA_PRECISION", "float8"), ("SEGMAMBA_THREADS", "many")]
)
def test_a_variable_that_would_stop_every_command_is_a_problem(
    segmamba: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    found, code = findings(segmamba)
    assert code == 1
    assert name in str(found["problems"])
    assert value in str(found["problems"])
