"""Corrections applied to label-map files: same numbering, same geometry, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from model_core.errors import OptionError
from model_core.imaging.declared import declared_scheme
from model_core.imaging.volume import Volume
from model_core.labels import from_scheme
from training.data.brats import VALUES
from training.data.dataset import Dataset
from training.data.described import PICTURES
from training.data.images import read_label_file, to_internal, write_labels
from training.judge.corrections import Corrections, apply_corrections

ENDINGS: Final = (".nii.gz", ".nii", *PICTURES)


def plan_files(source: Path, target: Path, *, overwrite: bool) -> list[tuple[Path, Path]]:
    """Which file becomes which; nothing is written.

    Args:
        source: a label map, or a folder of them.
        target: a file (or a folder that exists) for a file, a folder for a folder.
        overwrite: whether files may exist.

    Raises:
        OptionError: no label map there, one that exists, or a file that would replace itself.
    """
    if source.is_dir():
        files = [path for path in sorted(source.iterdir()) if _is_labels(path)]
        pairs = [(path, target / path.name) for path in files]
    else:
        into = target / source.name if target.is_dir() else target
        pairs = [(source, into)] if source.is_file() and _is_labels(source) else []
    if not pairs:
        raise OptionError(
            "IN",
            expected="a label map, or a folder of them (.nii.gz, .nii, .png)",
            got="none",
            way_out="Check the path.",
        )
    taken = [after for _, after in pairs if after.exists()]
    if any(before.resolve() == after.resolve() for before, after in pairs) or (
        taken and not overwrite
    ):
        raise OptionError(
            "OUT",
            expected="a new file or folder",
            got=f"{len(taken)} files that exist",
            way_out="Name another folder (raw predictions are kept), or pass --overwrite.",
        )
    return pairs


def correct_file(source: Path, target: Path, corrections: Corrections) -> int:
    """Correct one label map.

    Returns:
        How many voxels changed.

    Raises:
        ImageError: an unreadable file, or a value that the corrections do not know.
        OptionError: another kind of file is asked for than the source is.
    """
    if (_ending(source) in PICTURES) != (_ending(target) in PICTURES):
        raise OptionError(
            "OUT",
            expected=f"a file as the source, {_ending(source)}",
            got=repr(target.name),
            way_out="Pictures stay pictures, volumes volumes.",
        )
    volume = read_label_file(source)
    dataset = _dataset(corrections, volume, source)
    labels = to_internal(volume.array, dataset)
    corrected, _ = apply_corrections(labels, volume.spacing_mm, corrections.task, corrections)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_labels(target, corrected, volume, dataset)
    return int(np.count_nonzero(corrected != labels))


def _dataset(corrections: Corrections, volume: Volume, source: Path) -> Dataset:
    """A data set that knows the numbering of the file."""
    return Dataset(
        name="label maps",
        layout="files",
        task=corrections.task,
        values=corrections.values or _brats_values(volume, source),
        training=(),
    )


def _brats_values(volume: Volume, source: Path) -> Mapping[int, int]:
    """Steps without a data set are a card's: BraTS, ET as 4 or 3 as the file declares."""
    scheme = declared_scheme(source)
    if scheme is None:
        from_scheme(volume.array, argument="label")  # refuses values that need a declaration
    return VALUES[scheme or "brats2023"]


def _is_labels(path: Path) -> bool:
    return path.name.endswith(ENDINGS) and not path.name.startswith(".")


def _ending(path: Path) -> str:
    return next((ending for ending in ENDINGS if path.name.endswith(ending)), "")
