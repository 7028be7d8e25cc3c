"""Finds and loads the compiled CPU kernels, if this installation has them.

Up to four builds of one source lie beside this file, one per instruction set; the widest that the
processor can run is taken. None is required: without them the PyTorch backend does the same work.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path
from typing import Final

import torch

ABI: Final = 4
"""What this code and the kernels pass to each other; the same number stands in native/abi.cpp."""

BUILD_VARIABLE: Final = "SEGMAMBA_NATIVE_BUILD"
"""The environment variable that forces one build: v2, v3, v4 or base."""

_BUILDS: Final = {"AVX512": ("v4", "v3", "v2"), "AVX2": ("v3", "v2")}
"""Builds that may run, best first, by PyTorch's name of the CPU's capability."""


@lru_cache(maxsize=1)
def native_library() -> ctypes.CDLL | None:
    """Return the loaded kernels, or None; `native_problem` says why not."""
    return _load()[0]


@lru_cache(maxsize=1)
def native_problem() -> str:
    """Why `native_library` returns None; empty when it does not."""
    return _load()[1]


@lru_cache(maxsize=1)
def native_build() -> str:
    """The instruction-set level of the loaded build, e.g. ``"v4"``; empty without one."""
    return _load()[2]


@lru_cache(maxsize=1)
def _load() -> tuple[ctypes.CDLL | None, str, str]:
    problem = _not_built()
    for build in candidate_builds():
        path = _find(build)
        if path is None:
            continue
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            problem = f"build {build} cannot be loaded ({error})"
            continue
        version = _version(library)
        if version != ABI:
            problem = (
                f"refused: {path.name} was built from other sources (interface {version},"
                f" expected {ABI}); rebuild with 'make native', or install again"
            )
            continue
        library.segmamba_chunk.restype = ctypes.c_int64
        return library, "", build
    return None, problem, ""


def candidate_builds() -> tuple[str, ...]:
    """Builds to try on this processor, best first; SEGMAMBA_NATIVE_BUILD forces one."""
    forced = os.environ.get(BUILD_VARIABLE)
    if forced:
        return (forced,)
    return (*_BUILDS.get(torch.backends.cpu.get_cpu_capability(), ("v2",)), "base")


def _not_built() -> str:
    forced = os.environ.get(BUILD_VARIABLE)
    if forced:
        return f"not built: {BUILD_VARIABLE} asks for {forced!r}, and there is no {_name(forced)}"
    return "not built: no C++ compiler was found at installation"


def _name(build: str) -> str:
    return f"_native_{build}.so"


def _find(build: str) -> Path | None:
    path = Path(__file__).with_name(_name(build))
    return path if path.is_file() else None


def _version(library: ctypes.CDLL) -> int:
    """The interface of a library; 0 for one that does not say."""
    try:
        return int(library.segmamba_abi())
    except AttributeError:
        return 0
