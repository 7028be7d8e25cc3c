"""What the measurements ran on: processor, memory, versions, and a short name for file names."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch

ROOT: Final = Path(__file__).parents[1]
PEERS: Final = (
    "mambapy", "nnunetv2", "monai", "fastapi", "uvicorn", "sqlalchemy", "dbos", "locust",
    "litserve", "bentoml",
)  # fmt: skip
_FLAGS: Final = ("sse4_2", "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "amx_bf16", "neon")
_GENERATIONS: Final = (
    # vendor, family, models, name: from the vendors' processor identification tables.
    ("AuthenticAMD", 23, range(0x31, 0x100), "zen2"),
    ("AuthenticAMD", 25, (*range(0x10, 0x20), *range(0x60, 0x80), *range(0xA0, 0xB0)), "zen4"),
    ("AuthenticAMD", 25, range(0x00, 0x60), "zen3"),
    ("AuthenticAMD", 26, range(0x00, 0x100), "zen5"),
    ("GenuineIntel", 6, (85,), "skylake"),
    ("GenuineIntel", 6, (106, 108), "icelake"),
    ("GenuineIntel", 6, (143,), "sapphirerapids"),
    ("GenuineIntel", 6, (207,), "emeraldrapids"),
    ("GenuineIntel", 6, (173, 174), "graniterapids"),
)


def machine() -> dict[str, Any]:
    """The machine as plain JSON values; nothing in it names a person or a host."""
    return {
        "slug": slug(),
        "cpu": _field("model name") or platform.processor() or platform.machine(),
        "generation": generation(),
        "architecture": platform.machine(),
        "cores": cores(),
        "caches": _caches(),
        "instruction_sets": [name for name in _FLAGS if name in _cpu_flags()],
        "memory_gb": round(memory_bytes() / 1e9, 1),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "native_build": native_build(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def versions() -> dict[str, str]:
    """Versions of what computes, the peers included where they are installed."""
    found = {name: _version(name) for name in ("segmamba-service", "torch", "numpy", *PEERS)}
    return {"python": platform.python_version(), "commit": commit()} | {
        name: version for name, version in found.items() if version
    }


def slug() -> str:
    """A readable name for file names, e.g. ``epyc-zen4-2c``."""
    model = (_field("model name") or platform.machine()).lower()
    family = next((word for word in ("epyc", "xeon", "ryzen", "core") if word in model), "")
    words = [family or re.sub(r"[^a-z0-9]+", "-", model).strip("-")[:24], generation()]
    return "-".join([*filter(None, words), f"{cores()}c"])


def generation() -> str:
    """The processor's generation, e.g. ``zen4``; empty where it is not known."""
    vendor, family, model = (_field(name) for name in ("vendor_id", "cpu family", "model"))
    for known_vendor, known_family, models, name in _GENERATIONS:
        if vendor == known_vendor and family == str(known_family) and int(model or -1) in models:
            return name
    return ""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def native_build() -> str:
    """Instruction-set level of the loaded native kernels; empty without them."""
    from model_core.ops import native_library

    return str(native_library.native_build())


def commit() -> str:
    """Commit of the checkout, with a plus where files differ from it; empty outside a checkout."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return head + ("+" if head and _git("status", "--porcelain", "-uno") else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _cpuinfo() -> Iterable[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else ()


def _field(name: str) -> str:
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _cpu_flags() -> list[str]:
    return (_field("flags") or _field("Features")).split()


def _caches() -> dict[str, str]:
    """Size of each cache of the first core, e.g. ``{"L2": "1024K"}``."""
    caches = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = (
            (folder / name).read_text(encoding="utf-8").strip()
            for name in ("type", "level", "size")
        )
        if kind != "Instruction":
            caches[f"L{level}"] = size
    return caches
