"""Finding what predicts: a run's folder, a set of folds, or a bundle, as a `Model`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from model_core.checkpoints import find_bundles, load_bundle
from model_core.errors import OptionError, StudyError
from model_core.inference.device import usable_device
from model_core.inference.segmenter import Segmenter
from model_core.networks import build_network
from training.config import TrainConfig
from training.judge.models import BundleModel, TrainedModel
from training.loop.checkpoint import best_weights
from training.loop.forward import memory_layout
from training.runs.run_folder import RunFolder, read_json
from training.task import BRATS, Task

CORRECTIONS_FILE: Final = "corrections.json"
"""In the folder of a run or of a set of folds: what was found for it."""
_SHARED_BY_FOLDS: Final = (
    "task", "orientation", "spacing_mm", "normalisation", "intensities", "window", "patch",
)  # fmt: skip
"""Settings in which the members of an ensemble must agree."""


def load_model(
    path: str | Path, *, fold: int | None = None, device: str = "auto", precision: str = "auto"
) -> TrainedModel | BundleModel:
    """What a folder, or the name of a bundle, holds.

    Args:
        path: of a run, of a set of folds (``fold_0`` …), or of a bundle.
        fold: of a set of folds this one alone; None: all, averaged.
        device: ``cpu``, ``cuda`` …, ``auto``.
        precision: of the convolutions: ``auto`` (what is fast here), or a name.

    Raises:
        OptionError: none of the three, a fold that is not there, or a device that cannot be used.
        CheckpointError: a run that has saved nothing yet, or a damaged file.
    """
    folder = Path(path)
    where = _device(device)
    if (folder / "config.json").is_file():
        _refuse_fold(fold, "one run")
        return _trained(folder, (folder,), where, precision)
    folds = sorted(found.parent for found in folder.glob("fold_*/config.json"))
    if folds:
        return _trained(folder, _chosen(folds, fold), where, precision)
    if (folder / "card.json").is_file() or str(path) in find_bundles():
        _refuse_fold(fold, "a bundle")
        return _bundle(str(path) if str(path) in find_bundles() else folder, where, precision)
    raise OptionError(
        "model",
        expected="the folder of a run, of a set of folds or of a bundle, or a bundle's name",
        got=repr(folder.name),
        way_out="segmamba runs and segmamba models list what there is.",
    )


def _bundle(source: str | Path, device: torch.device, precision: str) -> BundleModel:
    segmenter = Segmenter(load_bundle(source), device=str(device), precision=precision)
    card = segmenter.card
    task = replace(BRATS, heads=card.heads)
    et = 4 if card.label_scheme == "brats2021" else 3
    return BundleModel(segmenter=segmenter, task=task, values={0: 0, 1: 1, 2: 2, et: 3})


def _trained(
    root: Path, folders: Sequence[Path], device: torch.device, precision: str
) -> TrainedModel:
    contents = [best_weights(RunFolder(folder)) for folder in folders]
    configs = [TrainConfig.from_json(content["config"]) for content in contents]
    _require_agreement(configs)
    config = configs[0]
    seen = (read_json(folder / "split.json") or {} for folder in folders)
    found = next((f for f in _corrections_files(root, folders) if f.is_file()), None)
    return TrainedModel(
        name=root.resolve().name,
        config=config,
        networks=tuple(
            _network(content["weights"], one, device)
            for content, one in zip(contents, configs, strict=True)
        ),
        device=device,
        fingerprint=_fingerprint(contents),
        values=_values(folders[0], config.task),
        trained_on=frozenset(name for split in seen for name in split.get("training", ())),
        corrections=found,
        precision=precision,
    )


def _network(weights: Mapping[str, Any], config: TrainConfig, device: torch.device) -> nn.Module:
    network: nn.Module = build_network(config.network, **config.network_args)
    network.load_state_dict(dict(weights))
    layout = memory_layout(config.task, channels_last=config.channels_last)
    network = network.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)


def _corrections_files(root: Path, folders: Sequence[Path]) -> list[Path]:
    """Where corrections may lie: a fold's own go before the set's, which are never one fold's."""
    places = [*(folders if len(folders) == 1 else ()), root]
    if root.name.startswith("fold_"):
        places.append(root.parent)
    return [place / CORRECTIONS_FILE for place in places]


def _values(folder: Path, task: Task) -> dict[int, int]:
    """File value → label of the run's data set; in the task's own order where it is not told."""
    told = (read_json(folder / "dataset.json") or {}).get("values")
    if isinstance(told, dict):
        return {int(value): int(label) for value, label in told.items()}
    if task.labels == BRATS.labels:
        return {0: 0, 1: 1, 2: 2, 4: 3}
    return {label: label for label in range(len(task.labels) + 1)}


def _fingerprint(contents: Sequence[Mapping[str, Any]]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        for name, tensor in sorted(content["weights"].items()):
            digest.update(name.encode())
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def _require_agreement(configs: Sequence[TrainConfig]) -> None:
    first = configs[0]
    for config in configs[1:]:
        apart = [n for n in _SHARED_BY_FOLDS if getattr(config, n) != getattr(first, n)]
        if apart:
            raise StudyError(
                "model",
                expected="folds of one recipe",
                got=f"folds that differ in {', '.join(apart)}",
                way_out="Predict with one of them: --fold K.",
            )


def _chosen(folds: Sequence[Path], fold: int | None) -> Sequence[Path]:
    if fold is None:
        return folds
    chosen = [folder for folder in folds if folder.name == f"fold_{fold}"]
    if not chosen:
        raise OptionError(
            "fold",
            expected=f"one of {', '.join(folder.name.removeprefix('fold_') for folder in folds)}",
            got=str(fold),
            way_out="Leave --fold out for the mean of all folds.",
        )
    return chosen


def _refuse_fold(fold: int | None, what: str) -> None:
    if fold is not None:
        raise OptionError(
            "fold", expected=f"none for {what}", got=str(fold), way_out="Leave --fold out."
        )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return usable_device(name)
