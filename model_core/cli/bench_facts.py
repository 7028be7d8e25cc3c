"""What a report of ``segmamba bench`` says about its machine: device, driver, versions, backends.

No name of a host or a person, no folder, no serial number.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import metadata
from typing import Any

import torch

from model_core.cli.bench_plan import BenchPlan
from model_core.cpu import physical_memory_bytes, usable_cpus
from model_core.precision import resolve_precision
from model_core.provenance.environment import code_version, machine, package_versions


def facts_of(plan: BenchPlan) -> dict[str, Any]:
    """The machine as plain JSON values."""
    return {
        "device": _device(plan),
        "processor": {
            "machine": machine(),
            "usable_cpus": usable_cpus(),
            "memory_gib": round(physical_memory_bytes() / 2**30, 1),
        },
        "versions": _versions(),
        "scan_backends": {name: problem or "available" for name, problem in plan.backends.items()},
        "chosen": {
            "backend": plan.backend,
            "precision": resolve_precision(plan.device),
            "precisions_measured": list(plan.precisions),
        },
        "settings": {name: value for name, value in os.environ.items() if _tells(name)},
    }


def _device(plan: BenchPlan) -> dict[str, Any]:
    if plan.rehearsal:
        return {"kind": str(plan.device), "name": "no GPU: a rehearsal"}
    found = torch.cuda.get_device_properties(plan.device)
    free, total = torch.cuda.mem_get_info(plan.device)
    return {
        "kind": str(plan.device),
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_gib": round(total / 2**30, 1),
        "memory_free_gib": round(free / 2**30, 1),
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]  # torch's own
        "tf32_in_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_in_products": torch.backends.cuda.matmul.allow_tf32,
    }


def _driver() -> str:
    """The version that nvidia-smi tells; every GPU of a machine has the same."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown: no nvidia-smi"
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown: nvidia-smi does not answer"
    return answer.partition("\n")[0].strip()


def _versions() -> dict[str, str]:
    code = code_version()
    found = {"segmamba-service": code.version, **package_versions()}
    if code.commit:
        found["commit"] = code.commit[:12]
    for package in ("triton", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _tells(name: str) -> bool:
    """Whether a variable says how networks run; others may name folders or hold secrets."""
    return name in {
        "SEGMAMBA_PRECISION", "SEGMAMBA_SCAN_BACKEND", "SEGMAMBA_CUDA_GRAPHS", "SEGMAMBA_THREADS",
        "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "PYTORCH_CUDA_ALLOC_CONF",
        "NVIDIA_TF32_OVERRIDE",
    }  # fmt: skip
