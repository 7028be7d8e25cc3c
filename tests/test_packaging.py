"""The package as it is declared, and as it is built: with a compiler, and without one."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = tuple(PROJECT["tool"]["scikit-build"]["wheel"]["packages"])
NOT_INSTALLED = {"tests", "benchmarks", "docker", "docs", "scripts"}
LEVELS = ("v2", "v3", "v4") if platform.machine().lower() in ("x86_64", "amd64") else ("base",)
NO_COMPILER = (
    "no C++ compiler: building without native kernels; the PyTorch scan will be used, slower"
)


def python_files(folder: Path) -> list[str]:
    """All of them, as paths inside the checkout."""
    return sorted(path.relative_to(ROOT).as_posix() for path in folder.rglob("*.py"))


def test_every_package_is_declared() -> None:
    """Packages are listed by name, so a new folder must be added or its modules stay behind."""
    ours = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."]
    found = {path.name for path in ours if python_files(path)}
    assert set(PACKAGES) == found - NOT_INSTALLED - {"build", "dist"}


def test_every_folder_of_a_package_is_one() -> None:
    """A folder without __init__.py would be installed and still be no part of its package."""
    for package in PACKAGES:
        for name in python_files(ROOT / package):
            assert (ROOT / name).with_name("__init__.py").is_file(), name


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
        for text in PROJECT["project"]["dependencies"] + extras["train"] + extras["dev"]
        if not text.startswith("segmamba-service[")  # one extra naming another of this project
        if (requirement := Requirement(text)).marker is None or requirement.marker.evaluate()
    ]
    wanted += [Requirement(text) for text in PROJECT["build-system"]["requires"]]
    assert len(wanted) > 20
    for requirement in wanted:
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


def test_no_plain_torchvision_anywhere() -> None:
    """Its compiled operators do not fit a CPU build of torch from another index."""
    for name in ("pyproject.toml", "constraints.txt"):
        assert "torchvision" not in (ROOT / name).read_text(encoding="utf-8")


def run(command: list[str | Path], folder: Path, **environment: str) -> str:
    """What a command says; it must succeed."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def copy_of_the_sources(to: Path) -> Path:
    """What a build reads, so that nothing is built into the checkout."""
    listed = run(["git", "ls-files", "-co", "--exclude-standard"], ROOT).splitlines()
    wanted = (*PACKAGES, "CMakeLists.txt", "pyproject", "README", "LICENSE", "scripts")
    for name in listed:
        if name.startswith(wanted) and (ROOT / name).is_file():
            target = to / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    return to


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def compiler() -> str:
    """The machine's own C++ compiler."""
    named = os.environ.get("CXX")
    for name in [named] if named else ["c++", "g++", "clang++"]:
        if found := shutil.which(name):
            return found
    pytest.skip("no C++ compiler here")


def compiler_that_refuses(pattern: str, compiler: str, folder: Path) -> str:
    """A compiler that fails when an argument matches the shell pattern."""
    script = folder / "c++"
    script.write_text(
        "#!/bin/sh\n"
        f'for argument; do case "$argument" in {pattern}) exit 1;; esac; done\n'
        f'exec "{compiler}" "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


def build_wheel(sources: Path, out: Path, *options: str, **environment: str) -> tuple[Path, str]:
    """The wheel, and what the build said; with the build tools that are installed here."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-v",
        "--no-deps",
        *options,
        "-w",
        out,
        sources,
    ]
    said = run(command, sources, PATH=path_with_tools(), **environment)
    (wheel,) = out.glob("*.whl")
    return wheel, said


def path_with_tools() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def libraries_in(wheel: Path) -> list[str]:
    return sorted(name for name in names_in(wheel) if name.endswith(".so"))


HERE = "--no-build-isolation"


@pytest.fixture(scope="module")
def built_without_compiler(
    sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The wheel, and what the build said."""
    return build_wheel(sources, tmp_path_factory.mktemp("pure"), HERE, CXX="/nowhere/c++")


@pytest.mark.slow
class TestWithoutKernels:
    def test_without_a_compiler_a_pure_wheel_is_built_with_one_clear_line(
        self, built_without_compiler: tuple[Path, str]
    ) -> None:
        wheel, said = built_without_compiler
        assert wheel.name.endswith("-py3-none-any.whl")
        assert said.count(NO_COMPILER) == 1
        assert libraries_in(wheel) == []

    @pytest.mark.parametrize("refused", ["*", "*/native/*.cpp"])
    def test_a_failing_compiler_costs_the_kernels_and_not_the_build(
        self, sources: Path, compiler: str, refused: str, tmp_path: Path
    ) -> None:
        """Whether nothing can be compiled, or only the kernels cannot."""
        broken = compiler_that_refuses(refused, compiler, tmp_path)
        wheel, said = build_wheel(sources, tmp_path / "wheels", HERE, CXX=broken)
        assert wheel.name.endswith("-py3-none-any.whl")
        assert libraries_in(wheel) == []
        assert said.count("this wheel is pure Python, without native kernels") == 1

    def test_the_wheel_installs_and_falls_back_to_the_torch_scan(
        self, built_without_compiler: tuple[Path, str], tmp_path: Path
    ) -> None:
        """From outside the checkout: the source tree cannot help."""
        wheel, _ = built_without_compiler
        place = tmp_path / "installed"
        run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", place, wheel],
            tmp_path,
        )
        code = (
            "import model_core.ops as ops;"
            "assert 'installed' in ops.__file__, ops.__file__;"
            "states = ops.available_backends();"
            "assert states['native'].startswith('not built'), states;"
            "assert ops.resolve_backend('cpu') == 'torch'"
        )
        environment = {"PYTHONPATH": str(place), "SEGMAMBA_SCAN_BACKEND": ""}
        run([sys.executable, "-c", code], tmp_path, **environment)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # everything is compiled, on whatever cores are free
def test_the_source_archive_makes_a_wheel_with_a_library_per_instruction_set(
    sources: Path, compiler: str, tmp_path: Path
) -> None:
    """The way of a release: archive, then wheel, with what pip fetches for the build."""
    code = "import sys, scikit_build_core.build as build; build.build_sdist(sys.argv[1])"
    run([sys.executable, "-c", code, str(tmp_path)], sources)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as members:
        members.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert list(unpacked.glob("model_core/ops/native/*.cpp"))

    wheel, _ = build_wheel(unpacked, tmp_path / "wheels", CXX=compiler)
    assert re.search(r"-py3-none-(linux|macosx)_\w+\.whl$", wheel.name)
    assert libraries_in(wheel) == [f"model_core/ops/_native_{level}.so" for level in LEVELS]
    names = names_in(wheel)
    modules = [name for package in PACKAGES for name in python_files(ROOT / package)]
    assert sorted(name for name in names if name.endswith(".py")) == sorted(modules)
    assert "model_core/py.typed" in names
    bundled = [str(path.relative_to(ROOT)) for path in ROOT.glob("model_core/models/*/*.*")]
    assert bundled
    assert set(bundled) <= set(names)
    folders = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert folders == set(PACKAGES)


@pytest.mark.slow
class TestLevels:
    """Which libraries CMake decides to build; nothing is compiled but its own small probes."""

    @pytest.mark.skipif(len(LEVELS) == 1, reason="one portable library on this processor")
    @pytest.mark.parametrize(
        ("refused", "kept"), [("-march=x86-64-v4", "v2;v3"), ("-march=*", "base")]
    )
    def test_a_compiler_that_lacks_a_level_loses_that_library_alone(
        self, sources: Path, compiler: str, refused: str, kept: str, tmp_path: Path
    ) -> None:
        older = compiler_that_refuses(refused, compiler, tmp_path)
        said = run(
            ["cmake", "-S", sources, "-B", tmp_path / "build", f"-DCMAKE_CXX_COMPILER={older}"],
            tmp_path, PATH=path_with_tools(),
        )  # fmt: skip
        assert f"native kernels: {kept}\n" in said
        assert said.count("_native_v4.so is not built") == 1

    def test_a_compiler_installed_later_is_found(
        self, sources: Path, compiler: str, tmp_path: Path
    ) -> None:
        configure: list[str | Path] = ["cmake", "-S", sources, "-B", tmp_path / "build"]
        said = run(configure, tmp_path, PATH=path_with_tools(), CXX="/nowhere/c++")
        assert said.count(NO_COMPILER) == 1
        said = run(configure, tmp_path, PATH=path_with_tools(), CXX=compiler)
        assert f"native kernels: {';'.join(LEVELS)}\n" in said


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_sources(tmp_path_factory.mktemp("checkout") / "tree")


@pytest.fixture(scope="module")
def python(checkout: Path) -> Path:
    """An environment of its own that borrows this one's packages, with the checkout in it."""
    place = checkout.parent / "environment"
    run([sys.executable, "-m", "venv", "--without-pip", place], checkout)
    (site,) = place.glob("lib/python*/site-packages")
    borrowed = [folder for folder in sys.path if folder.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    python = place / "bin" / "python"
    run(
        [python, "-m", "pip", "install", "-q", "--no-deps", HERE, "--ignore-installed",
         "--config-settings=wheel.cmake=false", "-e", checkout],
        checkout,
    )  # fmt: skip
    return python


@pytest.mark.slow
class TestCheckout:
    """An editable installation: the sources of the checkout run, and kernels are built into it."""

    def test_its_modules_are_imported_also_those_written_later(
        self, checkout: Path, python: Path, tmp_path: Path
    ) -> None:
        (checkout / "model_core" / "later.py").write_text("")
        code = "import model_core.later, model_core.ops; print(model_core.ops.__file__)"
        said = run([python, "-c", code], tmp_path)
        assert said.strip() == str(checkout / "model_core" / "ops" / "__init__.py")

    def test_another_copy_can_be_run_by_naming_it(self, python: Path, tmp_path: Path) -> None:
        """As with every installed package, PYTHONPATH comes first."""
        (tmp_path / "model_core").mkdir()
        (tmp_path / "model_core" / "__init__.py").write_text("")
        code = "import model_core; print(model_core.__file__)"
        said = run([python, "-c", code], tmp_path, PYTHONPATH=str(tmp_path))
        assert said.strip() == str(tmp_path / "model_core" / "__init__.py")

    @pytest.mark.timeout(1200)
    def test_a_rebuilt_library_takes_the_place_of_the_old_one_and_leaves_it_whole(
        self, checkout: Path, python: Path, compiler: str, tmp_path: Path
    ) -> None:
        """A process that runs the old one would crash if its file were written again."""
        build: list[str | Path] = [checkout / "scripts" / "native.sh"]
        environment = {"PATH": path_with_tools(), "CXX": compiler}
        run(build, tmp_path, **environment)
        library = checkout / "model_core" / "ops" / f"_native_{LEVELS[0]}.so"
        old = tmp_path / "old.so"
        os.link(library, old)
        before = old.read_bytes()

        source = checkout / "model_core" / "ops" / "native" / "abi.cpp"
        source.write_text(re.sub(r"return \d+", "return 98", source.read_text()))
        run(build, tmp_path, **environment)
        assert old.read_bytes() == before
        assert library.read_bytes() != before

        code = "from model_core.ops.native_library import native_problem; print(native_problem())"
        said = run([python, "-c", code], tmp_path)
        assert "interface 98, expected" in said
        assert "make native" in said

        library.unlink()
        run(build, tmp_path, **environment)
        assert library.is_file()
