"""How much memory a worker takes of what it computes on: of the GPU's, or of the machine's."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping

import psutil
import torch


def device_memory(device: str) -> Mapping[str, int]:
    """Bytes by kind; asking starts no work and waits for none.

    Args:
        device: ``cuda``, ``cuda:1`` … or any other, for which the process's own memory counts.

    Returns:
        ``used`` now and at its ``peak`` since the start; on a GPU also ``reserved``, which torch's
        allocator holds for what comes next.
    """
    if device.startswith("cuda"):
        return {
            "used": torch.cuda.memory_allocated(device),
            "reserved": torch.cuda.memory_reserved(device),
            "peak": torch.cuda.max_memory_allocated(device),
        }
    used = psutil.Process().memory_info().rss
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"used": used, "peak": max(used, peak)}  # the kernel counts the two apart
