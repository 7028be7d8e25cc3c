"""Freed memory stays with the process once it was asked to, or goes."""

from __future__ import annotations

import subprocess
import sys

import pytest

KEEPING = """
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

GIVING = """
import sys
from model_core.allocator import give_back_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

if sys.argv[1] == "set":
    assert give_back_freed_memory()
block = bytearray(30 * 2**20)
del block
before = resident()
blocks, between = [], []
for _ in range(200):
    blocks.append(bytearray(200_000))
    between.append(bytearray(1_000))
del blocks
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_blocks_are_reused_without_new_pages() -> None:
    """Five blocks of 64 MB: 16384 pages each before, next to none afterwards."""
    result = subprocess.run(
        [sys.executable, "-c", KEEPING], capture_output=True, text=True, check=True
    )
    fresh, kept = map(int, result.stdout.split())
    assert kept < fresh / 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_blocks_between_used_ones_go_back() -> None:
    """Blocks of 40 MB in all: they stay by default, and go where that was asked for."""

    def held(how: str) -> int:
        command = [sys.executable, "-c", GIVING, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert held("default") > 30_000_000
    assert held("set") < 5_000_000
