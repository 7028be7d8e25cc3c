"""The same tests again with narrower builds of the kernels, and with none at all.

So a processor without AVX-512, one without AVX2, and a machine without a compiler are held to the
values that this machine is held to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model_core.ops.native_library import BUILD_VARIABLE, native_build

ROOT = Path(__file__).parents[3]
OPS = Path("tests/model_core/ops")
WHAT = (
    *(OPS / f"test_{name}.py" for name in ("scan", "causal_conv", "mamba_inner", "norm", "blend")),
    Path("tests/model_core/networks"),
)
NONE = "none"


@pytest.fixture(params=["v3", "v2", NONE])
def machine(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a lesser machine."""
    if request.param != NONE and not native_build().startswith("v"):
        pytest.skip("builds for x86-64 cannot run on this processor")
    if request.param != NONE and request.param > native_build():
        pytest.skip(f"this processor runs {native_build()} at most")
    return {**os.environ, BUILD_VARIABLE: request.param, "SEGMAMBA_PRECISION": "float32"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_kernel_and_network_is_right_on_a_lesser_machine(machine: dict[str, str]) -> None:
    words = ["-q", "-p", "no:cacheprovider", "-m", "not slow", *map(str, WHAT)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=ROOT,
        env=machine,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.slow
def test_the_doctor_says_what_a_lesser_machine_uses(machine: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from model_core.cli.main import main; main()", "doctor", "--json"],
        cwd=ROOT,
        env=machine,
        capture_output=True,
        text=True,
        check=True,
    )
    findings = json.loads(done.stdout)
    built = {check["backend"]: check.get("build") for check in findings["checks"]}
    if machine[BUILD_VARIABLE] == NONE:
        assert findings["selected"]["cpu"] == "torch"
        assert "no _native_none.so" in findings["backends"]["native"]
    else:
        assert findings["selected"]["cpu"] == "native"
        assert built["native"] == machine[BUILD_VARIABLE]
