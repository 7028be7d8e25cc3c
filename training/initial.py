"""Where a run's weights begin when they are not drawn anew: another run's, or a bundle's.

Every tensor must be there and fit. One thing may differ: the head. Where its channels have another
meaning (more labels, regions instead of labels) it is drawn anew, and the user is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model_core.checkpoints import find_bundles, load_bundle
from model_core.errors import CheckpointError, OptionError
from model_core.networks import build_network
from training.config import TrainConfig
from training.loop.checkpoint import best_weights
from training.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from training.loop.trainer import Trainer

_WAY_OUT = "Choose weights of the network that the recipe trains, or leave --from out."


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """Weights to begin from, and what their channels mean."""

    tensors: Mapping[str, Tensor]
    network: str
    channels: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Of names and values; a run and the bundle exported from it have the same."""
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            tensor = self.tensors[name].detach().to("cpu", torch.float32).contiguous()
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        return f"sha256:{digest.hexdigest()[:32]}"


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What of some initial weights a config's network takes."""

    tensors: Mapping[str, Tensor]
    drawn_anew: tuple[str, ...]
    """Tensors of the head that keep their fresh values."""
    remarks: tuple[str, ...]
    """For the user: what differs."""


def read_initial(source: str | Path) -> InitialWeights:
    """The best weights of a run, or those of a bundle.

    Args:
        source: folder of a run (one fold of several) or of a bundle, or a known bundle's name.

    Raises:
        OptionError: neither.
        CheckpointError: the run has saved nothing, or a file is damaged.
    """
    folder = Path(source)
    if (folder / "config.json").is_file():
        return _of_run(RunFolder(folder))
    if (folder / "card.json").is_file() or str(source) in find_bundles():
        return _of_bundle(source if str(source) in find_bundles() else folder)
    if any(folder.glob("fold_*/config.json")):
        raise OptionError(
            "from",
            expected="one run",
            got="several folds",
            way_out=f"Choose a fold, for example --from {folder.name}/fold_0.",
        )
    raise OptionError(
        "from",
        expected="the folder of a run or of a bundle, or a bundle's name",
        got=repr(folder.name),
        way_out="segmamba runs and segmamba models list what there is.",
    )


def fit_initial(initial: InitialWeights, config: TrainConfig) -> Beginning:
    """Which of the weights the config's network takes.

    Raises:
        CheckpointError: another network, or tensors that do not fit it; the message names them.
    """
    if initial.network != config.network:
        raise CheckpointError(
            f"--from holds a {initial.network}, the recipe trains a {config.network}. {_WAY_OUT}"
        )
    wanted = build_network(config.network, **config.network_args).state_dict()
    head = _head_of(config) if initial.outputs != config.task.outputs else frozenset()
    taken = {name: value for name, value in initial.tensors.items() if name not in head}
    wrong = [
        name
        for name in {**wanted, **taken}
        if name not in head
        and (name not in taken or name not in wanted or taken[name].shape != wanted[name].shape)
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(
            f"--from does not fit the recipe's network: {', '.join(wrong[:5])}{more} are missing, "
            f"unknown or of another shape. Its channels are {', '.join(initial.channels)}; set the "
            "same network_args (config.json, card.json), or leave --from out."
        )
    return Beginning(
        tensors=taken, drawn_anew=tuple(sorted(head)), remarks=_remarks(initial, config)
    )


def begin(trainer: Trainer, beginning: Beginning) -> None:
    """Put the weights into a trainer that has made no step; the rest of its network stays."""
    trainer.begin_from({**trainer.network.state_dict(), **beginning.tensors})


def _of_run(folder: RunFolder) -> InitialWeights:
    content = best_weights(folder)
    config = TrainConfig.from_json(content["config"])
    return InitialWeights(
        tensors=content["weights"],
        network=config.network,
        channels=config.task.channels,
        outputs=config.task.outputs,
    )


def _of_bundle(source: str | Path) -> InitialWeights:
    bundle = load_bundle(source)
    return InitialWeights(
        tensors=bundle.network.state_dict(),
        network=bundle.card.family,
        channels=bundle.card.channels,
        outputs=bundle.card.outputs,
    )


def _head_of(config: TrainConfig) -> frozenset[str]:
    """Names of the tensors whose shape follows the number of output channels."""
    more = {**config.network_args, "out_channels": len(config.task.outputs) + 1}
    one = build_network(config.network, **config.network_args).state_dict()
    other = build_network(config.network, **more).state_dict()
    return frozenset(name for name in one if one[name].shape != other[name].shape)


def _remarks(initial: InitialWeights, config: TrainConfig) -> tuple[str, ...]:
    remarks = []
    if initial.outputs != config.task.outputs:
        remarks.append(
            f"the head is drawn anew: its channels were {', '.join(initial.outputs)}, "
            f"now {', '.join(config.task.outputs)}"
        )
    if initial.channels != config.task.channels:
        remarks.append(
            f"the images were {', '.join(initial.channels)}, now {', '.join(config.task.channels)}:"
            " the first layer must learn them"
        )
    return tuple(remarks)
