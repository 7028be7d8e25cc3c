"""Which devices a machine's workers compute on, told without loading torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_GPUS: Final = Path("/proc/driver/nvidia/gpus")


def worker_devices(wanted: str) -> tuple[str, ...]:
    """One worker's device each: ``auto`` is every NVIDIA GPU that may be used, else the CPU.

    Args:
        wanted: ``auto``, or names with commas between them, such as ``cuda:0,cuda:1``.
    """
    if wanted != "auto":
        return tuple(part.strip() for part in wanted.split(",") if part.strip()) or ("cpu",)
    return tuple(f"cuda:{number}" for number in range(_usable_gpus())) or ("cpu",)


def _usable_gpus() -> int:
    """As CUDA counts them: all, or those that ``CUDA_VISIBLE_DEVICES`` lists."""
    there = len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return there
    return min(there, len([part for part in listed.split(",") if part.strip() not in ("", "-1")]))
