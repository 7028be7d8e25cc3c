"""What a run ran on: code, interpreter, libraries, processor. No host, user or folder name.

``sources`` is a fingerprint of the package's own files: two runs with the same one had the same
code, whatever was committed.
"""

from __future__ import annotations

import hashlib
import platform
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from model_core.cpu import physical_memory_bytes, usable_cpus
from model_core.provenance.environment import commit_at, package_version

_ROOT = Path(__file__).parents[2]
_PACKAGES = (
    "torch", "monai", "lightning-fabric", "numpy", "scipy", "nibabel", "blosc2", "matplotlib",
    "tensorboard", "mamba-ssm", "causal-conv1d", "triton",
)  # fmt: skip


def describe_environment() -> dict[str, Any]:
    """The environment of this process, as JSON values."""
    return {
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "code": {
            "version": package_version("segmamba-service") or "unreleased",
            "commit": commit_at(),
            "sources": sources_fingerprint(),
        },
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: version for name in _PACKAGES if (version := package_version(name))},
        "processor": _processor(),
        "gpus": _gpus(),
    }


@cache
def sources_fingerprint() -> str:
    """SHA-256 (first 16 digits) over the names and texts of the package's Python files."""
    digest = hashlib.sha256()
    for room in ("model_core", "training"):
        for path in sorted((_ROOT / room).rglob("*.py")):
            digest.update(f"{path.relative_to(_ROOT).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": _processor_name(),
        "usable_processors": usable_cpus(),
        "memory_gib": round(physical_memory_bytes() / 2**30, 1),
    }
    torch = sys.modules.get("torch")  # whoever trains has loaded it; nobody else needs it here
    if torch is not None:
        facts["threads"] = torch.get_num_threads()
    return facts


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _gpus() -> list[dict[str, Any]]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    devices = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    return [
        {
            "name": device.name,
            "memory_gib": round(device.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
        }
        for device in devices
    ]
