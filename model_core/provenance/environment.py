"""What a run ran on: this program, its libraries, the processor's instructions. No host or user."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Final

from model_core.cpu import cpu_features
from model_core.provenance.manifest import CodeRecord

_ROOT: Final = Path(__file__).parents[2]
_PRODUCER: Final = "segmamba-service"
PACKAGES: Final = (
    "torch", "numpy", "scipy", "monai", "nibabel", "connected-components-3d", "isal", "pydicom",
    "highdicom", "SimpleITK", "mamba-ssm", "causal-conv1d", "triton",
)  # fmt: skip
"""Those that can change a voxel; what is not installed is left out."""


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed ones of `PACKAGES`."""
    found = {name: version for name in PACKAGES if (version := package_version(name)) is not None}
    return {"python": platform.python_version(), **found}


def code_version() -> CodeRecord:
    """This program's version, and its commit where it runs from a checkout."""
    return CodeRecord(version=package_version(_PRODUCER) or "unreleased", commit=commit_at())


def machine() -> str:
    """For example ``x86_64 avx2 avx512``."""
    return " ".join([platform.machine(), *(name for name, has in cpu_features().items() if has)])


def commit_at(git: Path = _ROOT / ".git") -> str | None:
    """Commit that a checkout stands on, this one if none is named; None outside of one.

    Needs no git program.
    """
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        branch = head.removeprefix("ref: ")
        if (git / branch).exists():
            return (git / branch).read_text().strip()
        packed = (line.split(" ", 1) for line in (git / "packed-refs").read_text().splitlines())
        return next((parts[0] for parts in packed if parts[1:] == [branch]), None)
    except OSError:
        return None


def package_version(package: str) -> str | None:
    """Version of an installed distribution; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
