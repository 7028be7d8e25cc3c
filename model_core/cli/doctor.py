"""``segmamba doctor``: what this machine has, which scan really runs, and what to do about gaps."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from model_core.cli import examples, out
from model_core.errors import SegMambaError

PACKAGES: Final = ("torch", "numpy", "scipy", "monai", "nibabel", "pydicom", "fastapi")
GPU_PACKAGES: Final = ("mamba-ssm", "causal-conv1d", "triton")
KERNEL_COMMAND: Final = (
    "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation "
    "'mamba-ssm>=2.2.5' 'causal-conv1d>=1.5.2'"
)
"""Newer mamba-ssm leaves out the kernel of Mamba-1 unless it is asked for; the quotes keep a shell
from reading ``>`` as a redirection."""


@dataclass
class Findings:
    """What the machine has. ``advice`` holds one sentence for each thing to mend or to know."""

    versions: dict[str, str] = field(default_factory=dict)
    cpu: dict[str, str] = field(default_factory=dict)
    gpus: list[dict[str, str]] = field(default_factory=list)
    backends: dict[str, str] = field(default_factory=dict)
    selected: dict[str, str] = field(default_factory=dict)
    precision: dict[str, str] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether a study can be segmented here."""
        return not self.problems


@examples(
    "segmamba doctor",
    "segmamba doctor --json | jq .selected",
    "SEGMAMBA_SCAN_BACKEND=torch segmamba doctor   (force a backend and check it)",
    "SEGMAMBA_PRECISION=float32 segmamba doctor   (what would run with this setting)",
)
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Tell what this machine has: versions, devices, the backend and precision that run, models.

    Every backend that can run here is checked forward and backward against the slow reference.
    Exit code 0: a study can be segmented here; 1: it cannot, and the last lines say what to do.
    """
    findings = examine()
    if as_json:
        typer.echo(json.dumps({**asdict(findings), "healthy": findings.healthy}, indent=2))
    else:
        _show(findings)
    raise typer.Exit(0 if findings.healthy else 1)


def examine() -> Findings:
    """Look at everything once; never raises for something missing."""
    findings = Findings()
    _examine_versions(findings)
    _examine_processor(findings)
    _examine_devices(findings)
    _examine_backends(findings)
    _examine_precision(findings)
    _examine_models(findings)
    return findings


def _examine_versions(findings: Findings) -> None:
    findings.versions["segmamba-service"] = _installed("segmamba-service")
    findings.versions["python"] = platform.python_version()
    for package in (*PACKAGES, *GPU_PACKAGES):
        findings.versions[package] = _installed(package)


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _examine_processor(findings: Findings) -> None:
    from model_core.cpu import cpu_features, memory_limit_bytes, physical_memory_bytes, usable_cpus
    from model_core.ops.native_library import native_build

    features = [name for name, has in cpu_features().items() if has]
    findings.cpu = {
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "usable_cpus": str(usable_cpus()),
        "threads": _threads(findings),
        "memory_gib": f"{physical_memory_bytes() / 2**30:.1f}",
        "memory_limit_gib": f"{memory_limit_bytes() / 2**30:.1f}",
        "instructions": " ".join(features) or "none of avx2, avx512, avx512_bf16, amx_bf16",
        "native_build": native_build() or "none",
    }


def _threads(findings: Findings) -> str:
    """The threads that a command would use; this process takes them too."""
    from model_core.cpu import limit_threads

    try:
        return str(limit_threads())
    except SegMambaError as error:
        findings.problems.append(str(error))
        return "unknown"


def _examine_devices(findings: Findings) -> None:
    import torch

    findings.versions["cuda (of torch)"] = torch.version.cuda or "none: a CPU build"
    if not torch.cuda.is_available():
        _advise_gpu(findings, torch.version.cuda)
        return
    live = _nvidia_smi()
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        findings.gpus.append(
            {
                "device": f"cuda:{index}",
                "name": properties.name,
                "capability": f"{properties.major}.{properties.minor}",
                "memory_free_gib": f"{free / 2**30:.1f}",
                "memory_total_gib": f"{total / 2**30:.1f}",
                **live.get(str(getattr(properties, "uuid", "")), {}),
            }
        )


def _advise_gpu(findings: Findings, cuda_build: str | None) -> None:
    if not shutil.which("nvidia-smi"):
        findings.advice.append("No NVIDIA GPU is visible: everything runs on the CPU.")
    elif cuda_build is None:
        findings.advice.append(
            "An NVIDIA driver is here but torch is a CPU build: install torch from PyPI's default "
            "index in a fresh environment to use the GPU."
        )
    elif os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        findings.advice.append("CUDA_VISIBLE_DEVICES hides every GPU: unset it to use one.")
    else:
        findings.advice.append(
            f"torch is built for CUDA {cuda_build} but sees no device: compare with the driver's "
            "version in nvidia-smi."
        )


def _nvidia_smi() -> dict[str, dict[str, str]]:
    """Temperature and use of each GPU by UUID, or nothing where nvidia-smi does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    query = "uuid,temperature.gpu,utilization.gpu"
    command = [tool, f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = (line.split(", ") for line in answer.splitlines() if line.count(", ") == 2)
    return {
        uuid.removeprefix("GPU-"): {"temperature_c": degrees, "use_percent": use}
        for uuid, degrees, use in rows
    }


def _examine_backends(findings: Findings) -> None:
    from model_core import ops

    findings.backends = {str(name): state for name, state in ops.available_backends().items()}
    for device in _devices_asked(findings):
        try:
            findings.selected[device] = str(ops.resolve_backend(device))
        except SegMambaError as error:
            findings.problems.append(str(error))
    for name, state in findings.backends.items():
        if state == "available":
            _check(findings, name)
    _advise_backends(findings)


def _devices_asked(findings: Findings) -> list[str]:
    """The CPU and the GPU; the GPU alone where a scan was named that serves nothing else."""
    from model_core.ops.backends import CUDA_KERNELS, chosen_name

    gpu = ["cuda"] if findings.gpus else []
    return gpu if gpu and chosen_name() in CUDA_KERNELS else ["cpu", *gpu]


def _check(findings: Findings, name: str) -> None:
    from model_core import ops

    on_gpu = name == "mamba-ssm" or (name == "triton" and findings.gpus)
    check = ops.check_backend(name, "cuda" if on_gpu else "cpu")
    findings.checks.append(asdict(check))
    if check.passed and name == "mamba-ssm":
        findings.advice.append("SUCCESS: the real mamba-ssm CUDA kernel runs here.")
    if not check.passed and name in findings.selected.values():
        findings.problems.append(
            f"The scan backend {name} was chosen but fails its check: {check.problem}. "
            f"Choose another: SEGMAMBA_SCAN_BACKEND=torch"
        )


def _advise_backends(findings: Findings) -> None:
    if findings.selected.get("cpu") == "torch" and findings.backends.get("native") != "available":
        findings.advice.append(
            "The CPU runs the PyTorch scan, slower than the native one. Install a C++ compiler "
            "(Debian: apt-get install g++; macOS: xcode-select --install), then reinstall the "
            "project: pip install --force-reinstall --no-deps ."
        )
    if findings.gpus and findings.backends.get("mamba-ssm") != "available":
        running = "Triton" if findings.selected.get("cuda") == "triton" else "PyTorch"
        findings.advice.append(
            f"The GPU runs the {running} scan. For the CUDA kernel: {KERNEL_COMMAND}"
        )


def _examine_precision(findings: Findings) -> None:
    from model_core.precision import describe_precision, resolve_precision

    for device in ["cpu", *(["cuda"] if findings.gpus else [])]:
        try:
            precision = resolve_precision(device)
        except SegMambaError as error:
            findings.problems.append(str(error))
            continue
        findings.precision[device] = describe_precision(device, precision)


def precision_line(device: str, described: str) -> str:
    """What is computed how on a device, and how to have it otherwise."""
    other = "float32" if described.startswith("bfloat16") else "bfloat16"
    return (
        f"On {device}, convolutions: {described}, Mamba and norms: float32. To switch: "
        f"--precision {other} or SEGMAMBA_PRECISION={other}"
    )


def _examine_models(findings: Findings) -> None:
    from model_core.checkpoints import DEFAULT_MODEL, find_bundles, read_card

    for name, folder in find_bundles().items():
        try:
            findings.models[name] = read_card(folder).version
        except SegMambaError as error:
            findings.models[name] = "broken"
            findings.advice.append(str(error))
    if findings.models.get(DEFAULT_MODEL, "broken") == "broken":
        findings.problems.append(
            f"The default model {DEFAULT_MODEL} is not usable here. Name a folder of model bundles "
            "in SEGMAMBA_MODELS, or make one: segmamba import --help"
        )


def _show(findings: Findings) -> None:
    console = out()
    _table(console, "Versions", findings.versions)
    _table(console, "Processor", findings.cpu)
    for gpu in findings.gpus:
        _table(console, "GPU", gpu)
    _table(console, "Scan backends", findings.backends)
    _table(console, "Chosen for", findings.selected)
    for device, described in findings.precision.items():
        console.print(precision_line(device, described), soft_wrap=True)
    _table(console, "Kernel check", {c["backend"]: _verdict(c) for c in findings.checks})
    _table(console, "Models", findings.models)
    for problem in findings.problems:
        console.print(f"[bold red]problem[/bold red] {problem}", soft_wrap=True)
    for line in findings.advice:
        console.print(f"[cyan]note[/cyan] {line}", soft_wrap=True)
    console.print(
        "[green]Ready: a study can be segmented here.[/green]"
        if findings.healthy
        else "[bold red]Not ready: see the problems above.[/bold red]"
    )


def _verdict(check: dict[str, Any]) -> str:
    if not check["passed"]:
        return f"FAILED: {check['problem']}"
    build = f" (build {check['build']})" if check.get("build") else ""
    return (
        f"forward and backward agree with the reference "
        f"(relative error {check['forward_error']:.0e}, {check['backward_error']:.0e}){build}"
    )


def _table(console: Any, title: str, rows: dict[str, str]) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
