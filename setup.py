"""Build the optional native scan: one shared library per instruction set, each free to fail.

Everything else about the package stands in pyproject.toml. The libraries are plain C++ with an
``extern "C"`` face, loaded with ctypes, so they need neither Python's headers nor its ABI; a wheel
that holds them is ``py3-none-<platform>``, and one built without a compiler is pure.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

NATIVE = Path("model_core/ops/native")
FLAGS = [
    "-O3",
    "-std=c++17",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-pthread",
    "-fPIC",
    "-shared",
]
X86_LEVELS = {"v2": "x86-64-v2", "v3": "x86-64-v3", "v4": "x86-64-v4"}


def native_libraries() -> list[Extension]:
    """One optional library per instruction set that this kind of machine may have."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    variants = {name: [f"-march={level}"] for name, level in X86_LEVELS.items()}
    return [
        Extension(
            f"model_core.ops._native_{variant}",
            sources=sorted(str(source) for source in NATIVE.glob("*.cpp")),
            depends=sorted(str(header) for header in NATIVE.glob("*.h*")),
            extra_compile_args=flags,
            optional=True,
        )
        for variant, flags in (variants if x86 else {"base": []}).items()
    ]


def find_compiler() -> list[str] | None:
    """The command of a C++ compiler: ``CXX`` when set, else the usual names on the PATH."""
    named = shlex.split(os.environ.get("CXX", ""))
    candidates = [named] if named else [["c++"], ["g++"], ["clang++"]]
    return next((command for command in candidates if shutil.which(command[0])), None)


class BuildNative(build_ext):
    """Compile each library with one command; drop those that cannot be built and say so."""

    def build_extensions(self) -> None:
        """Keep only the libraries that were built, so that later steps look for no other."""
        compiler = find_compiler()
        if compiler is None:
            self.extensions = []
            say(
                "no C++ compiler: building without native kernels;"
                " the PyTorch scan will be used, slower"
            )
            return
        self.extensions = [ext for ext in self.extensions if self._compile(compiler, ext)]

    def get_ext_filename(self, fullname: str) -> str:
        """A plain name without Python's ABI tag: the library is not a Python module."""
        return str(Path(*fullname.split("."))) + ".so"

    def _compile(self, compiler: list[str], ext: Extension) -> bool:
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place and then moved there: a process that runs the old one keeps it whole.
        partial = library.with_suffix(".partial")
        command = [*compiler, *FLAGS, *ext.extra_compile_args, *ext.sources, "-o", str(partial)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the user's own compiler
        except OSError as error:
            say(f"{library.name} was not built: {error.strerror}")
            return False
        if result.returncode != 0:
            reason = next((line for line in result.stderr.splitlines() if "error" in line), "")
            say(f"{library.name} was not built: {reason or 'the compiler failed'}")
            return False
        partial.replace(library)
        return True


class TagByContent(bdist_wheel):
    """Tag the wheel by what was really built: pure without libraries, any Python with them."""

    @property
    def root_is_pure(self) -> bool:
        """Whether the wheel holds no library; final once build_ext has run."""
        return not self.get_finalized_command("build_ext").extensions

    @root_is_pure.setter
    def root_is_pure(self, declared: bool) -> None:
        """Setuptools would decide by what was declared, before anything is compiled."""

    def get_tag(self) -> tuple[str, str, str]:
        """``py3-none-any`` or ``py3-none-<platform>``."""
        return "py3", "none", super().get_tag()[2]


def say(line: str) -> None:
    """One line for whoever builds; setuptools' own log is too long to be read."""
    sys.stderr.write(f"segmamba-service: {line}\n")


setup(
    ext_modules=native_libraries(),
    cmdclass={"build_ext": BuildNative, "bdist_wheel": TagByContent},
)
