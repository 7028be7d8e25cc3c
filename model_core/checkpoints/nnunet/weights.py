"""The network in an nnU-Net checkpoint.

Its tensors bear our own names if our trainers wrote them, and the authors' names if the trainer
released with LightM-UNet did. Family and sizes are read from the tensors either way, so a trainer
derived from one of these is taken as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from model_core.checkpoints.nnunet.plans import resolve
from model_core.checkpoints.upstream import assemble
from model_core.checkpoints.weights import read_content, tensors_in
from model_core.errors import CheckpointError
from model_core.networks import NETWORKS, Network
from model_core.networks.upstream_keys import detect, key_map


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a checkpoint tells besides its tensors."""

    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]
    """Of nnU-Net's array, so those of our card's orientation."""
    epochs: int
    tensors: Mapping[str, Tensor]


def read_trained(path: Path) -> Trained:
    """Read ``checkpoint_*.pth``; nothing in it is executed.

    Raises:
        CheckpointError: the file is damaged, holds code, or is not nnU-Net's.
    """
    content = read_content(path)
    arguments = content.get("init_args")
    if not isinstance(arguments, Mapping) or not isinstance(content.get("trainer_name"), str):
        raise CheckpointError(
            f"{path.name} is not a checkpoint of nnU-Net v2 (trainer_name or init_args is missing);"
            " copy the whole results folder again"
        )
    # nnU-Net stores None where training did not mirror.
    axes = content.get("inference_allowed_mirroring_axes") or ()
    return Trained(
        trainer=content["trainer_name"],
        configuration=str(arguments.get("configuration")),
        mirror_axes=tuple(int(axis) for axis in axes),
        epochs=int(content.get("current_epoch", 0)),
        tensors=tensors_in({"network_weights": content.get("network_weights", {})}),
    )


def build_trained(trained: Trained, plans: Mapping[str, Any]) -> Network:
    """The network with its weights, ready to infer.

    Args:
        trained: from `read_trained`.
        plans: the content of ``plans.json``, for the message.

    Raises:
        CheckpointError: a network that this project does not have, by the name of its class, or
            tensors that do not fit.
    """
    renamed = _in_authors_names(trained.tensors)
    tensors = trained.tensors if renamed is None else renamed
    try:
        family, config = detect(tensors)
    except CheckpointError as error:
        raise CheckpointError(
            f"these are weights of nnU-Net's {_class_in(plans, trained.configuration)} (trainer "
            f"{trained.trainer}), which this project does not run; it imports the networks of the "
            f"trainers nnUNetTrainerSegMamba, nnUNetTrainerSegMambaSmall and "
            f"nnUNetTrainerLightMUNet: {', '.join(NETWORKS)}. Predict with nnU-Net itself"
        ) from error
    if family == "segmamba" and renamed is not None:
        config["num_slices"] = None  # our trainers let the scan follow each map's own first axis
    return assemble(family, config, tensors)


def _in_authors_names(ours: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The same tensors under the authors' names; None if these are not ours."""
    for family in NETWORKS:
        try:
            names = key_map(family, ours)
        except AssertionError:  # `key_map` knows every name of a family, and says so of no other
            continue
        return {theirs: ours[name] for theirs, name in names.items()}
    return None


def _class_in(plans: Mapping[str, Any], configuration: str) -> str:
    """The network's class by the plans, e.g. ``PlainConvUNet``."""
    settings = resolve(plans, configuration)
    architecture = settings.get("architecture", {})
    name = architecture.get("network_class_name") or settings.get("UNet_class_name", "network")
    return str(name).rpartition(".")[2]
