"""Compiles the Triton scan for NVIDIA GPUs without one, and reads how many registers it takes.

``python -m model_core.ops.scan_triton_compile`` prints a table. Every kernel is compiled just as a
first scan of a SegMamba layer would have it, to PTX and on to machine code by the ``ptxas`` that
Triton's wheel carries, which tells registers and spills. Not for Triton's interpreter, which does
not compile.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from model_core.ops.scan_triton_launch import WARPS, backward, forward
from model_core.ops.scan_triton_plan import Operands

ARCHITECTURES: Final = (75, 80, 86, 89, 90)
"""Compute capabilities times ten: Turing, A100, Ampere, Ada, Hopper."""
_USED: Final = re.compile(r"Used (\d+) registers")
_FRAME: Final = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill")


class Compiled(NamedTuple):
    """One kernel on one architecture."""

    kernel: str
    architecture: int
    registers: int
    """32-bit registers of a thread; 255 is the most there are."""
    spill_stores: int
    """Bytes that a thread writes to memory for want of registers."""
    spill_loads: int
    shared: int
    """Bytes of shared memory of a program."""
    ptx: str


def compile_scan(
    architecture: int, *, states: int = 16, dtype: torch.dtype = torch.float32
) -> list[Compiled]:
    """Compile every kernel that a scan and its gradient launch.

    Args:
        architecture: one of `ARCHITECTURES`, or another that Triton knows.
        states: N.
        dtype: of u, delta, z, B and C.
    """
    found = []

    def compile_only(kernel: Any, grid: tuple[int, ...], **arguments: Any) -> None:
        built = kernel.warmup(grid=grid, **arguments, num_warps=WARPS, num_stages=1)
        name = _name(kernel.__name__, arguments)
        found.append(_read(name, architecture, built.asm["ptx"], built.metadata.shared))

    with _pretended(architecture):
        operands = _operands(states, dtype)
        out = torch.empty_like(operands.u)
        kept = forward(operands, out, compile_only)
        backward(operands, out, kept, (out, out, out), compile_only)
    return found


def _operands(states: int, dtype: torch.dtype) -> Operands:
    """Tensors as a SegMamba layer hands them over: channels side by side, scanned by an order."""
    channels, length = 96, 512

    def tokens_first(width: int) -> torch.Tensor:
        return torch.empty(1, length, width, dtype=dtype).transpose(1, 2)

    u, delta, z = (tokens_first(channels) for _ in range(3))
    B, C = (tokens_first(states)[:, None] for _ in range(2))
    A, D, bias = torch.empty(channels, states), torch.empty(channels), torch.empty(channels)
    order = torch.arange(length, dtype=torch.int32)
    return Operands(u, delta, A, B, C, D, z, bias, True, order)


def _name(kernel: str, arguments: dict[str, Any]) -> str:
    """The kernel's name, with what this variant of it writes."""
    written = [name for name in ("ends", "out", "pieces") if arguments.get(name) is not None]
    return f"{kernel} ({', '.join(written)})" if kernel == "advance" else kernel


def _read(name: str, architecture: int, ptx: str, shared: int) -> Compiled:
    """Assemble PTX and read what ptxas says of it."""
    ptxas = triton.knobs.nvidia.ptxas.path
    suffix = "a" if architecture >= 90 else ""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        target = [f"--gpu-name=sm_{architecture}{suffix}", "-o", str(Path(folder, "kernel.cubin"))]
        report = subprocess.run(  # noqa: S603 - Triton's own assembler
            [ptxas, "-v", *target, str(source)], capture_output=True, text=True, check=True
        ).stderr
    used, frame = _USED.search(report), _FRAME.search(report)
    assert used is not None, report
    assert frame is not None, report
    stores, loads = int(frame[2]), int(frame[3])
    return Compiled(name, architecture, int(used[1]), stores, loads, shared, ptx)


@contextmanager
def _pretended(architecture: int) -> Iterator[None]:
    """Let Triton believe that there is a GPU of this architecture."""
    before = triton.runtime.driver._active
    triton.runtime.driver.set_active(_Pretended(architecture))
    try:
        yield
    finally:
        triton.runtime.driver._active = before


class _Pretended(DriverBase):  # type: ignore[misc]  # Triton ships no types
    """A driver that names a target and launches nothing."""

    def __init__(self, architecture: int) -> None:
        super().__init__()
        self._architecture = architecture

    @classmethod
    def is_active(cls) -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        raise NotImplementedError(ty)

    def get_current_target(self) -> Any:
        return GPUTarget("cuda", self._architecture, 32)

    def get_current_device(self) -> int:
        return self._architecture  # Triton keeps what it compiled by device

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self) -> Any:
        raise NotImplementedError


def main() -> None:
    """Write the table, in Markdown."""
    write = sys.stdout.write
    write(
        f"Triton {triton.__version__}; registers of a thread / spilled bytes (stores + loads)\n\n"
    )
    write("| kernel | " + " | ".join(f"sm_{arch}" for arch in ARCHITECTURES) + " |\n")
    write("|---" * (1 + len(ARCHITECTURES)) + "|\n")
    columns = [compile_scan(architecture) for architecture in ARCHITECTURES]
    for row in zip(*columns, strict=True):
        cells = (f"{x.registers} / {x.spill_stores + x.spill_loads}" for x in row)
        write(f"| {row[0].kernel} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
