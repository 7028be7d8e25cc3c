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
    problem = "not built: no C++ compiler was found at installation"
    for build in candidate_builds():
        path = _find(build)
        if path is None:
            continue
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            problem = f"build {build} cannot be loaded ({error})"
            continue
        library.segmamba_chunk.restype = ctypes.c_int64
        return library, "", build
    return None, problem, ""


def candidate_builds() -> tuple[str, ...]:
    """Builds to try on this processor, best first; SEGMAMBA_NATIVE_BUILD forces one."""
    forced = os.environ.get("SEGMAMBA_NATIVE_BUILD")
    if forced:
        return (forced,)
    return (*_BUILDS.get(torch.backends.cpu.get_cpu_capability(), ("v2",)), "base")


def _find(build: str) -> Path | None:
    found = sorted(Path(__file__).parent.glob(f"_native_{build}*.so"))
    return found[0] if found else None
