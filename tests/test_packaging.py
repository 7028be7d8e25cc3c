"""The package as it is declared, and as it is built: with a compiler, and without one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = ("model_core", "service", "training")
NO_COMPILER = (
    "no C++ compiler: building without native kernels; the PyTorch scan will be used, slower"
)


def test_every_package_is_declared() -> None:
    """Packages are listed by name, so a new folder must be added or its modules stay behind."""
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_every_command_can_be_loaded() -> None:
    from importlib.metadata import EntryPoint

    commands = PROJECT["project"]["entry-points"]["segmamba.commands"]
    for name, place in commands.items():
        assert callable(EntryPoint(name, place, "segmamba.commands").load())


def test_every_dependency_is_pinned_to_a_release_that_its_range_admits() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [
        requirement
        for text in PROJECT["project"]["dependencies"] + extras["dev"]
        if (requirement := Requirement(text)).marker is None or requirement.marker.evaluate()
    ]
    assert len(wanted) > 20
    for requirement in wanted:
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


def test_no_plain_torchvision_anywhere() -> None:
    """Its compiled operators do not fit a CPU build of torch from another index."""
    for name in ("pyproject.toml", "constraints.txt"):
        assert "torchvision" not in (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads, so that nothing is built into the checkout."""
    copy = tmp_path_factory.mktemp("sources")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        if name.startswith((*PACKAGES, "setup.py", "pyproject", "README", "LICENSE")):
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    return copy


def build_wheel(sources: Path, out: Path, **environment: str) -> tuple[Path, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "-w", str(out), str(sources)],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built_without_compiler(
    sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The wheel, and what the build said."""
    return build_wheel(sources, tmp_path_factory.mktemp("pure"), CXX="/nowhere/c++")


@pytest.mark.slow
def test_without_a_compiler_a_pure_wheel_is_built_with_one_clear_line(
    built_without_compiler: tuple[Path, str],
) -> None:
    wheel, said = built_without_compiler
    assert wheel.name.endswith("-py3-none-any.whl")
    assert said.count(NO_COMPILER) == 1
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]


@pytest.mark.slow
def test_a_failing_compiler_costs_the_kernels_and_not_the_build(
    sources: Path, tmp_path: Path
) -> None:
    wheel, said = build_wheel(sources, tmp_path / "wheels", CXX="false")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "was not built" in said


@pytest.mark.slow
def test_with_a_compiler_the_wheel_holds_a_library_per_instruction_set(
    sources: Path, tmp_path: Path
) -> None:
    from shutil import which

    if not (which("c++") or which("g++") or which("clang++")):
        pytest.skip("no C++ compiler here")
    wheel, _ = build_wheel(sources, tmp_path / "wheels")
    assert re.search(r"-py3-none-(linux|macosx)_\w+\.whl$", wheel.name)
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if re.fullmatch(r"model_core/ops/_native_\w+\.so", name)]
    assert "model_core/py.typed" in names
    bundled = [str(path.relative_to(ROOT)) for path in ROOT.glob("model_core/models/*/*.*")]
    assert set(bundled) <= set(names)
    assert not [name for name in names if name.startswith("tests")]


@pytest.mark.slow
def test_the_wheel_without_kernels_installs_and_falls_back_to_the_torch_scan(
    built_without_compiler: tuple[Path, str], tmp_path: Path
) -> None:
    """From outside the checkout: the source tree cannot help."""
    wheel, _ = built_without_compiler
    place = tmp_path / "installed"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", place, wheel],
        check=True,
    )
    code = (
        "import model_core.ops as ops, sys; assert 'installed' in ops.__file__; "
        "states = ops.available_backends(); "
        "sys.exit(not (states['native'] != 'available' and ops.resolve_backend('cpu') == 'torch'))"
    )
    environment = os.environ | {"PYTHONPATH": str(place)}
    environment.pop("SEGMAMBA_SCAN_BACKEND", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
