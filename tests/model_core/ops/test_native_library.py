"""Which build of the kernels is loaded, and what is said about one that cannot be."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_core.ops import native_library
from model_core.ops.native_library import ABI, BUILD_VARIABLE, candidate_builds

CACHED = (
    native_library.native_library,
    native_library.native_problem,
    native_library.native_build,
    native_library._load,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the module looks for its libraries, empty."""
    for cached in CACHED:
        cached.cache_clear()
    monkeypatch.setattr(native_library, "__file__", str(tmp_path / "native_library.py"))
    monkeypatch.delenv(BUILD_VARIABLE, raising=False)
    yield tmp_path
    for cached in CACHED:
        cached.cache_clear()


@pytest.fixture(scope="module")
def compiler() -> str:
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    return found or pytest.skip("no C++ compiler here")


def compile_library(compiler: str, folder: Path, build: str, source: str) -> None:
    library = str(folder / f"_native_{build}.so")
    command = [compiler, "-shared", "-fPIC", "-x", "c++", "-", "-o", library]
    subprocess.run(command, input=source, text=True, check=True)


def library_of(version: int) -> str:
    return (
        f'extern "C" int segmamba_abi() {{ return {version}; }}'
        'extern "C" long segmamba_chunk() { return 7; }'
    )


def test_without_a_library_the_reason_is_given(folder: Path) -> None:
    assert native_library.native_library() is None
    assert native_library.native_build() == ""
    assert native_library.native_problem() == "not built: no C++ compiler was found at installation"


def test_a_forced_build_that_is_not_there_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BUILD_VARIABLE, "v9")
    assert candidate_builds() == ("v9",)
    assert native_library.native_library() is None
    assert native_library.native_problem() == (
        "not built: SEGMAMBA_NATIVE_BUILD asks for 'v9', and there is no _native_v9.so"
    )


def test_a_matching_library_is_loaded_and_says_its_level(folder: Path, compiler: str) -> None:
    compile_library(compiler, folder, "base", library_of(ABI))
    library = native_library.native_library()
    assert library is not None
    assert library.segmamba_chunk() == 7
    assert native_library.native_build() == "base"
    assert native_library.native_problem() == ""


@pytest.mark.parametrize("source", [library_of(ABI + 1), "int nothing;"])
def test_a_library_of_other_sources_is_refused_with_the_way_out(
    folder: Path, compiler: str, source: str
) -> None:
    """A later interface, or one from before interfaces had a number."""
    compile_library(compiler, folder, "base", source)
    assert native_library.native_library() is None
    problem = native_library.native_problem()
    assert "_native_base.so was built from other sources" in problem
    assert f"expected {ABI}" in problem
    assert "make native" in problem


def test_a_file_that_is_no_library_is_passed_over(
    folder: Path, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_, last = candidate_builds()
    (folder / f"_native_{first}.so").write_bytes(b"damaged")
    assert native_library.native_library() is None
    assert f"build {first} cannot be loaded" in native_library.native_problem()
    for cached in CACHED:
        cached.cache_clear()
    compile_library(compiler, folder, last, library_of(ABI))
    assert native_library.native_build() == last


def test_the_library_of_this_checkout_has_the_interface_of_its_sources() -> None:
    """The number is written twice, in C++ and in Python: they must be bumped together."""
    source = Path(native_library.__file__).with_name("native") / "abi.cpp"
    assert f"segmamba_abi() {{ return {ABI}; }}" in source.read_text(encoding="utf-8")
