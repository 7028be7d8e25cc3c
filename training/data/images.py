"""Reading the files of a case, preparing them for a network, and writing labels as files again.

Arrays are (X, Y, Z) on the first channel's grid. A picture is a volume of shape (1, H, W) with the
identity as its affine ("RAS"). Labels are internal outside of files (`Dataset.values`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model_core.errors import ImageError, StudyError
from model_core.imaging.grid import Grid
from model_core.imaging.nifti import ReadLimits, read_nifti, write_label_map, write_nifti
from model_core.imaging.preprocess import Prepared, Preprocessing, prepare_volumes
from model_core.imaging.volume import Volume
from model_core.labels import scheme_values
from model_core.types import LABEL_SCHEMES, LabelScheme
from training.config import TrainConfig
from training.data.channels_4d import split_channels
from training.data.dataset import CaseFiles, Dataset
from training.data.described import PICTURES
from training.data.pictures import read_picture, read_picture_labels, write_picture_labels
from training.task import BRATS, LabelArray, Task

LIMITS: Final = ReadLimits(file_bytes=2**33, voxels=2**31, longest_axis=2**15, shortest_axis=1)
"""Of a user's own training data: single slices and whole bodies are welcome."""


def read_images(case: CaseFiles, task: Task) -> tuple[Volume, ...]:
    """The channels of a case in the task's order, all on the first one's grid.

    Channels are matched by name where the case knows what its files show, so a task may want them
    in another order than the files have, or fewer.

    Raises:
        ImageError: a file is missing or unusable; names the channel.
        StudyError: another number of channels than named, or grids that differ.
    """
    names = case.channels or task.channels
    volumes = read_files(case.images, names)
    if len(volumes) != len(names):
        raise StudyError(
            "images",
            expected=f"{len(names)} channels ({', '.join(names)})",
            got=f"{len(volumes)}",
            way_out="Give one file per channel, or one file with all of them.",
        )
    known = dict(zip(names, volumes, strict=True))
    missing = [name for name in task.channels if name not in known]
    if missing:
        raise StudyError(
            missing[0],
            expected="this channel, which the model needs",
            got=f"a case of {', '.join(names)}",
            way_out="Use a model of these channels, or add the missing images.",
        )
    return on_one_grid([known[name] for name in task.channels], task.channels)


def read_files(paths: Sequence[Path], names: Sequence[str]) -> list[Volume]:
    """Every channel in the files, in their order, each on its own grid."""
    if len(paths) == 1:
        return _read_file(paths[0], names[0] if len(names) == 1 else "images", len(names))

    def read(number: int) -> list[Volume]:
        name = names[number] if number < len(names) else f"channel {number}"
        return _read_file(paths[number], name, 1)

    with ThreadPoolExecutor(len(paths)) as pool:  # inflating lets other threads run
        return [volume for volumes in pool.map(read, range(len(paths))) for volume in volumes]


def on_one_grid(volumes: Sequence[Volume], names: Sequence[str]) -> tuple[Volume, ...]:
    """The volumes turned (exactly) to the first one's axes; another grid raises `StudyError`."""
    first = volumes[0]
    turned = tuple(volume.reoriented(first.axcodes) for volume in volumes)
    for volume, name in zip(turned, names, strict=True):
        if not volume.grid.matches(first.grid):
            raise StudyError(
                name,
                expected=f"the grid of {names[0]}: {first.grid.describe()}",
                got=_difference(volume.grid, first.grid),
                way_out="Co-register the channels and resample them to one grid.",
            )
    return turned


def read_labels(case: CaseFiles, dataset: Dataset, *, on: Grid | None = None) -> LabelArray:
    """The truth of a case, internal labels (X, Y, Z).

    Args:
        case: one with a label file.
        dataset: what declares the values.
        on: the grid of the images; a map in another axis order is turned to it, which is exact.

    Raises:
        StudyError: the case has no truth.
        ImageError: unusable, on another grid, or a value that is not declared.
    """
    if case.label is None:
        raise StudyError(
            "label",
            expected="a label map, the ground truth",
            got="none",
            way_out="Leave the case out or add its label map.",
        )
    return to_internal(read_label_file(case.label, on=on).array, dataset)


def read_label_file(path: Path, *, on: Grid | None = None) -> Volume:
    """A label map as its file has it, turned to the grid `on`.

    Raises:
        ImageError: unusable, or on another grid.
    """
    if path.suffix.lower() in PICTURES:
        volume = read_picture_labels(path, argument="label")
    else:
        volume = read_nifti(path, argument="label", limits=LIMITS)
    if on is None:
        return volume
    volume = volume.reoriented(on.axcodes)
    if not volume.grid.matches(on):
        raise ImageError(
            "label",
            expected=f"the grid of its images: {on.describe()}",
            got=_difference(volume.grid, on),
            way_out="Resample it to the images with nearest-neighbour interpolation.",
        )
    return volume


def to_internal(values: npt.NDArray[Any], dataset: Dataset) -> LabelArray:
    """Internal labels of an array of file values.

    Raises:
        ImageError: a value that the data set does not declare.
    """
    table = np.zeros(max(dataset.values) + 1, np.uint8)
    for value, label in dataset.values.items():
        table[value] = label
    strange = undeclared(values, dataset)
    if strange:
        shown = ", ".join(f"{value:g}" for value in strange[:5])
        raise ImageError(
            "label",
            expected=f"the declared values {', '.join(map(str, sorted(dataset.values)))}",
            got=f"also {shown}{', …' if len(strange) > 5 else ''}",
            way_out="Correct the label map, or declare its values (dataset.json; for BraTS "
            "folders: --labels).",
        )
    internal: LabelArray = table[values.astype(np.intp)]
    return internal


def undeclared(values: npt.NDArray[Any], dataset: Dataset) -> list[float]:
    """The values in an array that the data set does not declare, sorted."""
    return [value for value in _distinct(values) if value not in dataset.values]


def _distinct(values: npt.NDArray[Any]) -> list[float]:
    """Every value that occurs, sorted; small whole numbers are counted, which needs no sorting."""
    if values.min() >= 0 and values.max() < 2**16:
        whole = values.astype(np.uint16)
        if np.array_equal(whole, values):
            return [float(value) for value in np.flatnonzero(np.bincount(whole.ravel()))]
    return [float(value) for value in np.unique(values)]


def preprocessing(config: TrainConfig) -> Preprocessing:
    """How images become the network's input, the same for training and for prediction."""
    return Preprocessing(
        channels=config.task.channels,
        orientation=config.orientation,
        spacing_mm=config.spacing_mm,
        normalisation=config.normalisation,
        intensities=config.intensities,
    )


def prepare_images(volumes: Sequence[Volume], config: TrainConfig) -> Prepared:
    """The network's input from `read_images`' volumes, and the way back to their grid.

    Raises:
        StudyError: nothing but zeros, or a channel that is constant.
    """
    return prepare_volumes(volumes, preprocessing(config))


def write_labels(
    path: Path, labels: LabelArray, like: CaseFiles | Volume, dataset: Dataset
) -> None:
    """Write internal labels in the data set's file values: whole, or not at all.

    A ``.nii.gz`` map of BraTS labels in a BraTS numbering says so in its header extension.

    Args:
        path: ``.nii.gz``, ``.nii`` or ``.png``; its folder must exist.
        labels: (X, Y, Z) on the grid of `like`, (1, H, W) for a picture.
        like: the image (or the case with it) whose geometry the file takes over.
        dataset: says which value stands for which label.

    Raises:
        ImageError: the labels do not fit the grid.
        OSError: the file cannot be written.
    """
    volume = like if isinstance(like, Volume) else _first_image(like)
    if labels.shape != volume.shape:
        raise ImageError(
            "labels",
            expected=f"the shape of the image they belong to, {volume.shape}",
            got=f"{labels.shape}",
            way_out="Restore them to the native grid first.",
        )
    scheme = _scheme_of(dataset)
    if scheme is not None and path.name.lower().endswith(".nii.gz"):
        write_label_map(path, labels, like=volume, scheme=scheme)
        return
    table = np.array([dataset.file_values[label] for label in range(len(dataset.file_values))])
    values = table.astype(np.uint8 if table.max() <= 255 else np.uint16)[labels]
    if path.suffix.lower() in PICTURES:
        write_picture_labels(path, values)
    else:
        write_nifti(path, Volume(values, volume.affine, header=volume.header))


def _scheme_of(dataset: Dataset) -> LabelScheme | None:
    """The BraTS numbering that the data set's files have, if they have one."""
    if dataset.task.labels != BRATS.labels:
        return None
    written = [dataset.file_values[label] for label in sorted(dataset.file_values)]
    for scheme in LABEL_SCHEMES:
        if written == list(scheme_values(scheme).values()):
            return scheme
    return None


def _first_image(case: CaseFiles) -> Volume:
    name = case.channels[0] if case.channels else "images"
    return _read_file(case.images[0], name, max(1, len(case.channels)))[0]


def _read_file(path: Path, name: str, channels: int) -> list[Volume]:
    """The channels of one file; a NIfTI of several is read only where several are wanted."""
    if path.suffix.lower() in PICTURES:
        return read_picture(path, argument=name)
    if channels == 1:
        return [read_nifti(path, argument=name, limits=LIMITS)]
    return [read_nifti(part, argument=name, limits=LIMITS) for part in split_channels(path, name)]


def _difference(grid: Grid, wanted: Grid) -> str:
    if grid.shape != wanted.shape:
        return grid.describe()
    return f"{grid.describe()}, {grid.distance_mm(wanted.affine):.3g} mm away"
