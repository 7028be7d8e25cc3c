"""The kernels on 64-bit ARM: cross-compiled, run under emulation, and compared with this machine's.

Small problems run here through the Python functions while every call into the library is recorded,
memory and all. The same calls are then replayed by the ARM library. The narrow x86 build is the
one to compare with: as many lanes, so the same layout of what one pass keeps for another.
"""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from model_core.ops import causal_conv1d, native_library, selective_scan
from model_core.ops.blend import add_weighted, labels_of
from model_core.ops.mamba_inner import DirectionWeights, mamba_inner
from model_core.ops.norm import instance_norm
from tests.model_core.ops.problems import scan_problem

ROOT = Path(__file__).parents[3]
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
SYSTEM = "/usr/aarch64-linux-gnu"
CONSTANTS = {"segmamba_abi", "segmamba_chunk", "segmamba_lanes", "segmamba_functions"}

pytestmark = pytest.mark.slow


@dataclass
class Call:
    """One call of an exported function: the memory it could reach, before and after."""

    function: str
    structure: bytes
    blocks: list[torch.Tensor] = field(default_factory=list)
    pointers: list[tuple[int, int, int]] = field(default_factory=list)  # at, block, offset
    expected: list[torch.Tensor] = field(default_factory=list)
    expected_structure: bytes = b""

    def encode(self) -> bytes:
        parts = [_sized(self.function.encode()), struct.pack("q", len(self.blocks))]
        parts += [_sized(_bytes(block)) for block in self.blocks]
        parts += [_sized(self.structure), struct.pack("q", len(self.pointers))]
        parts += [struct.pack("3q", *pointer) for pointer in self.pointers]
        return b"".join(parts)


def _sized(data: bytes) -> bytes:
    return struct.pack("q", len(data)) + data


def _bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.view(torch.uint8).numpy())


class Recorder:
    """A stand-in for the loaded library that keeps what passes through it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.calls: list[Call] = []
        self._library = library
        self._memory: dict[int, torch.Tensor] = {}  # by address; held, so that none is reused

    def see(self, tensor: torch.Tensor) -> None:
        """Remember the memory that a tensor's pointer leads into."""
        storage = tensor.untyped_storage()
        whole = torch.empty(0, dtype=tensor.dtype).set_(storage)
        self._memory.setdefault(storage.data_ptr(), whole)

    def __getattr__(self, name: str) -> Callable[..., int]:
        function = getattr(self._library, name)

        def call(*arguments: Any) -> int:
            if not arguments:
                return int(function())
            (reference,) = arguments
            return self._record(name, function, reference._obj)

        return call

    def _record(self, name: str, function: Any, arguments: ctypes.Structure) -> int:
        call = Call(name, bytes(arguments))
        live: list[torch.Tensor] = []
        for at, address in _pointers(arguments):
            memory = self._memory_at(address, arguments)
            place = next((i for i, known in enumerate(live) if known is memory), len(live))
            if place == len(live):
                live.append(memory)
            call.pointers.append((at, place, address - memory.data_ptr()))
        call.blocks = [memory.clone() for memory in live]
        status = int(function(ctypes.byref(arguments)))
        call.expected = [memory.clone() for memory in live]
        after = bytearray(bytes(arguments))
        for at, _, _ in call.pointers:
            after[at : at + 8] = bytes(8)
        call.expected_structure = bytes(after)
        self.calls.append(call)
        return status

    def _memory_at(self, address: int, arguments: ctypes.Structure) -> torch.Tensor:
        for start, memory in self._memory.items():
            if start <= address < start + memory.nbytes:
                return memory
        for array in _arrays(arguments._objects):
            if ctypes.addressof(array) == address:
                memory = torch.frombuffer(array, dtype=torch.uint8)
                return self._memory.setdefault(address, memory)
        raise AssertionError(f"a pointer to memory that no tensor owns: {address:#x}")


def _arrays(kept: object) -> Iterator[ctypes.Array[Any]]:
    """The arrays that Python made for a call, which ctypes keeps with the structure."""
    if isinstance(kept, ctypes.Array):
        yield kept
    elif isinstance(kept, dict | tuple):
        for inner in kept.values() if isinstance(kept, dict) else kept:
            yield from _arrays(inner)


def _pointers(structure: ctypes.Structure, start: int = 0) -> Iterator[tuple[int, int]]:
    """Where in the structure a pointer stands, and where it leads; null ones are left out."""
    for name, kind, *_ in structure._fields_:
        at = start + getattr(type(structure), name).offset
        value = getattr(structure, name)
        if isinstance(value, ctypes.Structure):
            yield from _pointers(value, at)
        elif kind is ctypes.c_void_p or issubclass(kind, ctypes._Pointer):
            address = (
                value if kind is ctypes.c_void_p else ctypes.cast(value, ctypes.c_void_p).value
            )
            if address:
                yield at, address


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the ARM library and the program that replays calls."""
    for program in (COMPILER, EMULATOR):
        if not shutil.which(program):
            pytest.skip(
                f"no {program} here; on Debian and Ubuntu:"
                " apt-get install g++-aarch64-linux-gnu qemu-user (300 MB)"
            )
    folder = tmp_path_factory.mktemp("arm")
    cmake = shutil.which("cmake", path=Path(sys.executable).parent) or shutil.which("cmake")
    assert cmake is not None, "one of the packages for developers"
    for command in (
        [cmake, "-S", ROOT, "-B", folder, "-DSKBUILD_STATE=wheel", "-DCMAKE_SYSTEM_NAME=Linux",
         "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={COMPILER}"],
        [cmake, "--build", folder, "--parallel", "2"],
        [COMPILER, "-std=c++17", "-O1", Path(__file__).with_name("replay.cpp"), "-o",
         folder / "replay", "-ldl"],
    ):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "_native_base.so").is_file()
    return folder


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """In the library's place, with four lanes as on ARM."""
    cached = (
        native_library.native_library,
        native_library.native_problem,
        native_library.native_build,
    )
    monkeypatch.setenv(native_library.BUILD_VARIABLE, "v2")
    library = native_library._load.__wrapped__()[0]
    if library is None:
        pytest.skip("the x86-64-v2 kernels are not built here")
    recorder = Recorder(library)
    pointer = torch.Tensor.data_ptr

    def data_ptr(tensor: torch.Tensor) -> int:
        recorder.see(tensor)
        return pointer(tensor)

    monkeypatch.setattr(torch.Tensor, "data_ptr", data_ptr)
    monkeypatch.setattr(native_library, "_load", lambda: (recorder, "", "v2"))
    for function in cached:
        function.cache_clear()
    yield recorder
    monkeypatch.undo()
    for function in cached:
        function.cache_clear()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scan_and_convolve() -> None:
    """Forward and backward, with a sequence that is not read as it lies; odd sizes have tails."""
    problem = scan_problem(70, channels=7)
    leaves = [x.requires_grad_() for x in problem.values() if isinstance(x, torch.Tensor)]
    order = torch.arange(70).flip(0)
    selective_scan(**problem, backend="native", order=order).square().sum().backward()
    assert all(leaf.grad is not None for leaf in leaves)
    x, weight = draw(2, 7, 70, seed=1).requires_grad_(), draw(7, 4, seed=2).requires_grad_()
    causal_conv1d(x, weight, silu=True, backend="native").square().sum().backward()


def normalise() -> None:
    x = draw(2, 7, 5, 6, 9, seed=3).to(memory_format=torch.channels_last_3d).requires_grad_()
    instance_norm(x, 0.01).pow(3).sum().backward()


def mamba() -> None:
    D, N, R, K, L = 10, 16, 3, 4, 70
    shapes = ((D, K), (D,), (R + 2 * N, D), (D, R), (D,), (D, N), (D,))
    weights = DirectionWeights(*(draw(*shape, seed=i) / 3 for i, shape in enumerate(shapes)))
    weights = weights._replace(A=-weights.A.exp(), dt_bias=weights.dt_bias - 2)
    xz, orders = draw(2, L, 2 * D, seed=9), torch.stack([torch.arange(L), torch.arange(L).flip(0)])
    with torch.no_grad():
        mamba_inner(xz, (weights, weights), orders)
    mamba_inner(xz.requires_grad_(), (weights, weights), orders).square().sum().backward()


def blend_and_decode() -> None:
    sums, scores = draw(3, 5, 6, 11, seed=4), draw(3, 5, 6, 11, seed=5)
    assert add_weighted(sums, scores, draw(5, 6, 11, seed=6).exp())
    assert add_weighted(sums, scores.bfloat16(), draw(5, 6, 11, seed=6).exp())
    assert labels_of(sums, "nested", (2, 0, 1), (2, 1, 3)) is not None
    assert labels_of(sums, "highest", (2, 0, 1), (2, 1, 3)) is not None


def turn() -> None:
    """Large enough, and with the tokens side by side, so that it is transposed natively."""
    x, weight = draw(1, 37, 301, seed=7), draw(37, 4, seed=8)
    causal_conv1d(x, weight, silu=True, backend="native")


PROBLEMS = (scan_and_convolve, normalise, mamba, blend_and_decode, turn)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_each_kernel_computes_on_arm_what_it_computes_here(
    problem: Callable[[], None], recorder: Recorder, arm: Path, tmp_path: Path
) -> None:
    problem()
    assert recorder.calls
    for call in recorder.calls:
        compare(call, replay(call, arm, tmp_path))


def replay(call: Call, arm: Path, folder: Path) -> bytes:
    """What the ARM library leaves behind, as replay.cpp writes it."""
    (folder / "call").write_bytes(call.encode())
    done = subprocess.run(
        [EMULATOR, "-L", SYSTEM, arm / "replay", arm / "_native_base.so", folder / "call",
         folder / "result"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{call.function}: {done.stderr}"
    return (folder / "result").read_bytes()


def compare(call: Call, result: bytes) -> None:
    assert struct.unpack_from("q", result)[0] == 0, f"{call.function}: status"
    at = 8
    changed = 0
    for before, here in zip(call.blocks, call.expected, strict=True):
        data = bytearray(result[at : at + here.nbytes])
        at += here.nbytes
        there = torch.frombuffer(data, dtype=here.dtype) if data else here
        changed += int(_bytes(before) != _bytes(there))
        scale = float(here[here.isfinite()].abs().max()) if here.is_floating_point() else 0.0
        torch.testing.assert_close(
            there, here, rtol=1e-4, atol=1e-5 * scale, equal_nan=True,
            msg=lambda text, call=call: f"{call.function}: {text}",
        )  # fmt: skip
    assert changed, f"{call.function} wrote nothing"
    assert result[at:] == call.expected_structure, f"{call.function}: its argument structure"


def test_no_kernel_is_left_out(recorder: Recorder, arm: Path) -> None:
    """A new exported function wants a problem of its own above."""
    for problem in PROBLEMS:
        problem()
    listed = subprocess.run(
        ["aarch64-linux-gnu-nm", "-D", "--defined-only", arm / "_native_base.so"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    exported = {line.split()[-1] for line in listed.splitlines()} - CONSTANTS
    assert {name for name in exported if name.startswith("segmamba_")} == {
        call.function for call in recorder.calls
    }
