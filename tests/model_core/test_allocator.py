"""Freed memory stays with the process once it was asked to."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from model_core.allocator import keep_freed_memory

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        block = bytearray(64 * 2**20)
        del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

fresh = faults(5)
assert keep_freed_memory()
faults(1)
print(fresh, faults(5))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_blocks_are_reused_without_new_pages() -> None:
    """Five blocks of 64 MB: 16384 pages each before, next to none afterwards."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    fresh, kept = map(int, result.stdout.split())
    assert kept < fresh / 10
