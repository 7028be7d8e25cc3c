"""What would fail after hours is refused at the start; what only looks odd is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from model_core.errors import OptionError, ShapeError
from model_core.networks import build_network, check_window
from model_core.types import Shape3
from training.card import why_no_bundle
from training.config import TrainConfig
from training.data.dataset import CaseFiles, Dataset
from training.data.described import PICTURES
from training.faults import NotNowError
from training.request import RunRequest


def check_request(request: RunRequest) -> None:
    """Refuse what needs no look at the data: a taken target, a device that is not there."""
    if request.export is not None and request.export.exists():
        raise OptionError(
            "export",
            expected="a folder that does not exist yet",
            got="one that does",
            way_out="Choose another folder, or export afterwards: segmamba export RUN --to DIR.",
        )
    if request.export is not None and request.fold == "all":
        raise OptionError(
            "export",
            expected="one run",
            got="--fold all",
            way_out="Export a fold afterwards: segmamba export RUN/fold_0 --to DIR.",
        )
    if request.validation and request.fold is not None:
        raise OptionError(
            "val",
            expected="no --fold beside it",
            got=f"--fold {request.fold}",
            way_out="A fold chooses the validation cases itself: give one of the two.",
        )
    _check_device(request.options.device)


def check_fit(config: TrainConfig, dataset: Dataset, request: RunRequest) -> None:
    """Refuse a config that the data set, the network or the export cannot take.

    Raises:
        OptionError: naming the setting.
    """
    _check_dimensions(config, dataset)
    _check_channels(config, dataset)
    _check_generated(config, request)
    _check_sizes(config)
    reason = why_no_bundle(config)
    if request.export is not None and reason is not None:
        raise OptionError(
            "export",
            expected="a run that makes a bundle",
            got=f"one that does not: {reason}",
            way_out="Leave --export out; segmamba predict uses the run itself.",
        )


def disk_warning(cases: Sequence[CaseFiles], cache: Path) -> str | None:
    """A sentence if prepared cases will hardly fit where they are to be kept.

    A prepared case is compressed, as its files are, so their size is a rough measure of it.
    """
    wanted = sum(path.stat().st_size for case in cases for path in case.images if path.is_file())
    kept = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    free = shutil.disk_usage(_existing(cache)).free
    if kept + free >= wanted:
        return None
    return (
        f"prepared cases may need {wanted / 1e9:.1f} GB, {free / 1e9:.1f} GB are free where they "
        "are kept: choose another disk with --cache, or make room"
    )


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _check_device(wanted: str) -> None:
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise OptionError(
            "device", expected="cpu, cuda, cuda:1 or auto", got=repr(wanted), way_out="Choose one."
        ) from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise NotNowError(
            "device",
            expected=f"one of the {count} CUDA devices that are here",
            got=repr(wanted),
            way_out="Take --device cpu, or see segmamba doctor for what is missing.",
        )


def _check_dimensions(config: TrainConfig, dataset: Dataset) -> None:
    pictures = any(
        path.suffix.lower() in PICTURES for case in dataset.training[:1] for path in case.images
    )
    if pictures and config.task.dims == 3:
        raise OptionError(
            "recipe",
            expected="a 2-D recipe: the data set holds pictures",
            got=f"{config.recipe}, which is 3-D",
            way_out="Take lightm-unet-2d, or lightm-unet-2d's settings with --set task.dims=2.",
        )


def _check_channels(config: TrainConfig, dataset: Dataset) -> None:
    missing = [name for name in config.task.channels if name not in dataset.task.channels]
    if missing:
        raise OptionError(
            "task.channels",
            expected=f"channels of the data set: {', '.join(dataset.task.channels)}",
            got=", ".join(config.task.channels),
            way_out="Choose among them, for example --set task.channels="
            f"{json.dumps(list(dataset.task.channels[:2]))}; missing: {', '.join(missing)}.",
        )


def _check_generated(config: TrainConfig, request: RunRequest) -> None:
    if config.phantoms and not config.task.is_brats:
        raise OptionError(
            "phantoms",
            expected="0 for a task other than BraTS glioma",
            got=str(config.phantoms),
            way_out="Phantoms show the four BraTS contrasts and its labels only.",
        )
    if not config.synthetic and request.synthesis is not None:
        raise OptionError(
            "synthesis",
            expected="a number of synthetic studies beside it",
            got="synthetic=0",
            way_out="For example --set synthetic=200, or leave --synthesis out.",
        )
    if config.synthetic:
        _check_synthesis(config, request)


def _check_synthesis(config: TrainConfig, request: RunRequest) -> None:
    if not config.task.is_brats:
        raise OptionError(
            "synthetic",
            expected="0 for a task other than BraTS glioma",
            got=str(config.synthetic),
            way_out="Synthetic studies show the four BraTS contrasts and its labels only.",
        )
    if request.synthesis is None:
        raise OptionError(
            "synthesis",
            expected="a folder with labels/ and masks/ to make synthetic studies from",
            got=f"none, with synthetic={config.synthetic}",
            way_out="Give --synthesis DIR, or --set synthetic=0.",
        )
    from training.synthesis.studies import find_material

    find_material(request.synthesis)


def _check_sizes(config: TrainConfig) -> None:
    """Patches and window that the network can take."""
    network = build_network(config.network, **config.network_args)
    sizes = {"patch": config.patch, "window": config.sliding_window}
    sizes |= {f"mixed_patches.{i}": mix.patch for i, mix in enumerate(config.mixed_patches)}
    for name, size in sizes.items():
        try:
            check_window(network, _seen(size, config))
        except ShapeError as error:
            raise OptionError(
                name,
                expected="sides that the network can halve as often as it must",
                got="×".join(map(str, size)),
                way_out=f"{error}.",
            ) from error


def _seen(size: Shape3, config: TrainConfig) -> tuple[int, ...]:
    """What a network of the task's dimensions sees of a patch."""
    return tuple(size[3 - config.task.dims :])
