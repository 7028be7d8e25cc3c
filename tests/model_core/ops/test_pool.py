"""The kernels' threads: shared by concurrent callers, none lost in a fork, as many as asked."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from model_core.ops import instance_norm, selective_scan
from model_core.ops.native_library import native_library, native_problem

pytestmark = pytest.mark.skipif(native_library() is None, reason=native_problem() or "native")


def scan(seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    u, delta, z = (torch.randn(1, 40, 700, generator=draw) for _ in range(3))
    B, C = (torch.randn(1, 16, 700, generator=draw) for _ in range(2))
    A = -torch.rand(40, 16, generator=draw)
    return selective_scan(u, delta, A, B, C, None, z, None, True, "native")


def test_callers_on_many_threads_get_what_each_gets_alone() -> None:
    alone = [scan(seed) for seed in range(12)]
    with ThreadPoolExecutor(6) as callers:
        together = list(callers.map(scan, range(12)))
    for expected, got in zip(alone, together, strict=True):
        assert torch.equal(expected, got)


def test_a_call_inside_another_threads_call_does_not_wait_for_it() -> None:
    x = torch.randn(1, 16, 24, 24, 24).contiguous(memory_format=torch.channels_last_3d)
    expected = instance_norm(x)
    with ThreadPoolExecutor(8) as callers:
        for got in callers.map(lambda _: instance_norm(x), range(40)):
            assert torch.equal(got, expected)


IN_A_FORKED_CHILD = """
import os, sys, torch
from tests.model_core.ops.test_pool import scan
torch.set_num_threads(2)
expected = scan(1)                    # the parent's threads are running now
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(scan(1), expected) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_computes_with_threads_of_its_own() -> None:
    subprocess.run([sys.executable, "-c", IN_A_FORKED_CHILD], check=True, timeout=60)


COUNT_THREADS = """
import os, sys, torch
from tests.model_core.ops.test_pool import scan
torch.set_num_threads(1)              # PyTorch itself then starts no threads either
torch.set_num_interop_threads(1)
before = len(os.listdir("/proc/self/task"))
scan(1)
alone = len(os.listdir("/proc/self/task")) - before
torch.set_num_threads(3)
scan(1)
print(alone, len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_as_many_threads_as_pytorch_was_told() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_THREADS],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    alone, three = map(int, done.stdout.split())
    assert alone == 0
    assert three == 2  # and the caller
