"""The Triton scan: how it divides work, when it is chosen, and what Triton itself makes of it.

What needs Triton runs in the environment that ``scripts/triton.sh`` makes: `triton_cases` in its
interpreter, and the compilation for GPUs that are not here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from model_core.errors import BackendError
from model_core.ops import backends, check_backend, resolve_backend, scan_triton, selective_scan
from model_core.ops.scan_triton_plan import STEP, plan
from tests.model_core.ops.problems import relative, scan_problem

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-triton" / "bin" / "python"

in_triton = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),  # a minute or two by itself; other tests run beside it
    pytest.mark.skipif(
        not (ROOT / ".venv-triton" / "ready").is_file(),
        reason="Triton's environment is missing: scripts/triton.sh makes it",
    ),
]


def run_in_triton(*arguments: str, **environment: str) -> str:
    """Run Python there; what it said, or a failure that shows it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    done = subprocess.run(
        [PYTHON, *arguments], cwd=ROOT, env=clean | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


class TestInTriton:
    pytestmark = in_triton

    @pytest.mark.parametrize(
        "group", ["TestValues", "TestChunks or TestOperator", "TestChoice or mamba"]
    )
    def test_in_the_interpreter_every_result_equals_the_reference(self, group: str) -> None:
        cases = "tests/model_core/ops/triton_cases.py"
        said = run_in_triton(
            *("-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", cases, "-k", group),
            TRITON_INTERPRET="1",
        )
        assert re.search(r"\d+ passed", said), said
        assert "skipped" not in said

    def test_compiled_for_five_generations_it_needs_no_memory_for_its_registers(
        self, tmp_path: Path
    ) -> None:
        """ptxas' own words: from sm_80 on nothing is spilled; Turing spills a few values."""
        said = run_in_triton(
            "-m", "model_core.ops.scan_triton_compile", TRITON_CACHE_DIR=str(tmp_path)
        )
        names, *kernels = [
            [cell.strip() for cell in line.strip("|\n ").split("|")]
            for line in said.splitlines()
            if line.startswith("|") and "---" not in line
        ]
        assert names == ["kernel", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90"]
        assert [row[0] for row in kernels] == [
            "advance (ends)", "chain", "advance (out)", "collect", "chain", "advance (pieces)",
            "differentiate",
        ]  # fmt: skip
        for kernel, *cells in kernels:
            for architecture, cell in zip(names[1:], cells, strict=True):
                registers, spilled = map(int, cell.split(" / "))
                assert 16 <= registers <= 255, (kernel, architecture)
                assert spilled <= (128 if architecture == "sm_75" else 0), (kernel, architecture)

    def test_half_precision_is_widened_when_read_and_rounded_to_nearest_when_written(
        self, tmp_path: Path
    ) -> None:
        """Which the interpreter does not show: it cuts digits off. With few and many states."""
        code = (
            "import torch; from model_core.ops.scan_triton_compile import compile_scan\n"
            "for states, name in ((1, 'float16'), (64, 'bfloat16')):\n"
            "    short = {'float16': 'f16', 'bfloat16': 'bf16'}[name]\n"
            "    for found in compile_scan(80, states=states, dtype=getattr(torch, name)):\n"
            "        read, written = f'cvt.f32.{short}', f'cvt.rn.{short}.f32'\n"
            "        print(found.kernel, read in found.ptx, written in found.ptx, sep=':')\n"
        )
        said = run_in_triton("-c", code, TRITON_CACHE_DIR=str(tmp_path)).splitlines()
        one_scan = [
            "advance (ends):True:False", "chain:False:False", "advance (out):True:True",
            "collect:True:False", "chain:False:False", "advance (pieces):True:False",
            "differentiate:True:True",
        ]  # fmt: skip
        assert said == one_scan * 2


class TestPlan:
    @pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 77), (1, 96, 262_144), (2, 768, 512)])
    @pytest.mark.parametrize("states", [1, 5, 16, 64, 256])
    def test_chunks_and_blocks_cover_every_token_and_channel_once(
        self, shape: tuple[int, int, int], states: int
    ) -> None:
        how = plan(torch.empty(shape, device="meta"), torch.empty(shape[1], states), 1)
        sizes, constants = how.sizes, how.constants
        assert (sizes.chunks - 1) * sizes.chunk < sizes.length <= sizes.chunks * sizes.chunk
        assert (how.blocks - 1) * how.channels_at_once < shape[1]
        assert shape[1] <= how.blocks * how.channels_at_once
        assert sizes.chunk % STEP == 0
        assert constants["STATES"] >= states
        assert constants["STATES"] * constants["CHANNELS"] <= 256

    def test_groups_do_not_share_a_block(self) -> None:
        how = plan(torch.empty(1, 60, 9, device="meta"), torch.empty(60, 16), 3)
        assert (how.channels_at_once, how.blocks) == (16, 6)

    @pytest.mark.parametrize("length", [2**18, 2**21, 2**24])
    def test_scratch_of_the_gradient_does_not_grow_with_the_sequence(self, length: int) -> None:
        how = plan(torch.empty(1, 96, length, device="meta"), torch.empty(96, 16), 1)
        tokens = how.chunks_at_once * how.sizes.chunk
        replayed, partial = 96 * 16 * tokens // STEP, 2 * how.blocks * 16 * tokens
        assert 4 * (replayed + partial) <= 2**28
        assert how.chunks_at_once >= 1

    def test_a_large_sequence_fills_a_gpu(self) -> None:
        how = plan(torch.empty(1, 96, 64**3, device="meta"), torch.empty(96, 16), 1)
        assert how.blocks * how.sizes.chunks >= 4096

    def test_too_many_states_are_refused(self) -> None:
        with pytest.raises(BackendError, match="up to 256 states, got 257"):
            plan(torch.empty(1, 1, 1), torch.empty(1, 257), 1)


class TestChoice:
    def test_a_gpu_takes_it_where_mamba_ssm_is_missing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backends, "mamba_ssm_function", lambda: (None, "missing"))
        monkeypatch.setattr(backends, "triton_problem", lambda kind: "")
        assert resolve_backend("cuda") == "triton"
        monkeypatch.setattr(backends, "triton_problem", lambda kind: "not installed")
        assert resolve_backend("cuda") == "torch"
        monkeypatch.setattr(backends, "mamba_ssm_function", lambda: (print, ""))
        assert resolve_backend("cuda") == "mamba-ssm"

    def test_a_cpu_never_takes_it_by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backends, "triton_problem", lambda kind: "")
        monkeypatch.setattr(backends, "native_problem", lambda: "not built")
        assert resolve_backend("cpu") == "torch"

    def test_cpu_tensors_are_refused_with_the_way_to_interpret(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(scan_triton.INTERPRET_VARIABLE, raising=False)
        with pytest.raises(BackendError, match="needs CUDA tensors; TRITON_INTERPRET=1"):
            selective_scan(**scan_problem(4), backend="triton")
        assert "TRITON_INTERPRET" in check_backend("triton").problem

    def test_other_devices_are_refused(self) -> None:
        with pytest.raises(BackendError, match="cannot run on mps: it needs CUDA tensors"):
            resolve_backend("mps", "triton")

    @pytest.mark.parametrize(
        ("version", "words"), [(None, "not installed"), ("3.2.0", "3.2.0 is older than 3.7")]
    )
    def test_a_missing_or_old_triton_is_named_with_the_command(
        self, version: str | None, words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Old:
            __version__ = version

        monkeypatch.setitem(sys.modules, "triton", Old() if version else None)
        scan_triton._import_problem.cache_clear()
        try:
            problem = scan_triton.triton_problem("cuda")
        finally:
            scan_triton._import_problem.cache_clear()
        assert words in problem
        assert "pip install 'segmamba-service[triton]'" in problem

    def test_a_driver_that_is_not_found_leaves_the_torch_scan(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def without_driver() -> None:
            raise AssertionError("libcuda.so cannot found!\nPossible files are located at")

        active = SimpleNamespace(get_current_target=without_driver)
        driver = SimpleNamespace(driver=SimpleNamespace(active=active))
        absent = SimpleNamespace(__version__="3.7.0", runtime=driver)
        monkeypatch.setitem(sys.modules, "triton", absent)
        monkeypatch.delenv(scan_triton.INTERPRET_VARIABLE, raising=False)
        monkeypatch.setattr(backends, "mamba_ssm_function", lambda: (None, "missing"))
        asked = (scan_triton._import_problem, scan_triton._gpu_problem)
        for cached in asked:
            cached.cache_clear()
        try:
            assert resolve_backend("cuda") == "torch"
            problem = scan_triton.triton_problem("cuda")
        finally:
            for cached in asked:
                cached.cache_clear()
        assert "Triton cannot start: AssertionError: libcuda.so cannot found! (it needs" in problem

    def test_model_core_does_not_import_triton(self) -> None:
        code = (
            "import sys; from model_core import Segmenter; from model_core.ops import *;"
            "available_backends(); resolve_backend('cpu'); sys.exit('triton' in sys.modules)"
        )
        clean = {k: v for k, v in os.environ.items() if k != scan_triton.INTERPRET_VARIABLE}
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=clean)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestOnAGpu:
    """What no test has shown yet where there is no GPU."""

    def test_the_check_passes(self) -> None:
        report = check_backend("triton", "cuda")
        assert report.passed, report.problem

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_long_scan_equals_the_torch_scan_s(self, dtype: torch.dtype) -> None:
        problem = scan_problem(40_001, batch=2, channels=96, dtype=dtype)
        moved = {k: x.cuda() if isinstance(x, torch.Tensor) else x for k, x in problem.items()}
        found = {}
        for backend in ("triton", "torch"):
            leaf = moved["u"].clone().requires_grad_()
            out = selective_scan(**(moved | {"u": leaf}), backend=backend)
            found[backend] = (out, *torch.autograd.grad(out.float().square().sum(), leaf))
        bound = 5e-6 if dtype == torch.float32 else 1e-2
        for got, true in zip(found["triton"], found["torch"], strict=True):
            assert relative(got, true) < bound
