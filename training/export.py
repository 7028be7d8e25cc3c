"""From a run to a model bundle: the best averaged weights and a card that says where they are from.

A run may be exported while it still goes on: what is best so far is written.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model_core.checkpoints import CardDraft, save_bundle
from model_core.checkpoints.card import TrainingRecord
from model_core.networks import build_network
from model_core.networks.build import network_config
from training.checkpoint import load_checkpoint
from training.config import TrainConfig
from training.naming import all_brats_2021, bundle_name, shown_names
from training.run_folder import RunFolder

INTENDED_USE = (
    "Research and education: outlining glioma on pre-operative, co-registered, skull-stripped "
    "T1, T1ce, T2 and FLAIR images of adults. Not a medical device."
)
CITATION = "Xing et al., SegMamba, MICCAI 2024."
BRATS_CITATION = (
    "Data: BraTS 2021, doi 10.7937/jc8x-9874; Baid et al. 2021, arXiv 2107.02314; "
    "Menze et al. 2015, IEEE TMI 34(10); Bakas et al. 2017, Scientific Data 4, 170117."
)
BRATS_LICENCE = "MIT (weights); trained on BraTS 2021 data, which is under CC BY 4.0"
UNKNOWN_LICENCE = "not stated: the rights in the training data decide"


def best_network(folder: RunFolder, device: str = "cpu") -> nn.Module:
    """The network to export: the best validated average, else the last one."""
    config, weights, _ = _best(folder)
    network: nn.Module = build_network(config.network, **config.network_args)
    network.load_state_dict(weights)
    return network.eval().to(device)


def export_bundle(
    folder: RunFolder,
    target: Path,
    *,
    name: str | None = None,
    version: str = "1",
    overwrite: bool = False,
) -> None:
    """Write the best weights of a run as a bundle.

    Args:
        folder: the run, finished or not.
        target: the bundle's folder.
        name: the bundle's name; the target folder's when not given.
        version: the bundle's version.
        overwrite: replace a bundle that is there.

    Raises:
        BundleError: the folder exists and is not to be overwritten.
        CheckpointError: the run has saved nothing yet.
    """
    network = best_network(folder)
    shown = bundle_name(name or target.resolve().name)
    draft = draft_card(folder, network, name=shown, version=version)
    save_bundle(target, network, draft, overwrite=overwrite)


def draft_card(folder: RunFolder, network: nn.Module, *, name: str, version: str) -> CardDraft:
    """The card of a run's best weights."""
    config, _, facts = _best(folder)
    split = json.loads(folder.split.read_text())
    from_brats = all_brats_2021(split["training"])
    return CardDraft(
        name=name,
        version=version,
        family=config.network,
        network=network_config(network),
        channels=config.channels,
        heads=config.heads,
        outputs=config.outputs,
        label_scheme="brats2021",
        orientation=config.orientation,
        spacing_mm=config.spacing_mm,
        normalisation=config.normalisation,
        window=config.sliding_window,
        overlap=config.overlap,
        mirror_axes=(0, 1, 2) if config.augmentation.flip else (),
        tta="none",
        postprocess=(),
        training=_training_record(split, config, facts),
        metrics=_metrics(folder, facts),
        licence=BRATS_LICENCE if from_brats else UNKNOWN_LICENCE,
        intended_use=INTENDED_USE,
        limitations=_limitations(len(split["training"])),
        citation=f"{CITATION} {BRATS_CITATION}" if from_brats else CITATION,
    )


def _best(folder: RunFolder) -> tuple[TrainConfig, dict[str, Any], dict[str, Any]]:
    """Config, averaged weights, and what is known about them (step, elapsed, validation)."""
    if folder.best.is_file():
        content = load_checkpoint(folder.best)
        weights = content.pop("weights")
    else:
        content = load_checkpoint(folder.last)
        weights = {name: value for name, value in content["ema"].items() if name != "updates"}
    known = ("step", "elapsed", "validation")
    facts: dict[str, Any] = {name: content[name] for name in known if name in content}
    return TrainConfig.from_json(content["config"]), weights, facts


def _training_record(
    split: dict[str, list[str]], config: TrainConfig, facts: dict[str, Any]
) -> TrainingRecord:
    return TrainingRecord.model_validate(
        {
            "data": _describe_data(split["training"], config),
            "code_version": code_version(),
            "recipe": config.recipe,
            "cases": shown_names(split["training"]),
            "validation_cases": shown_names(split["validation"]),
            "step": facts["step"],
            "minutes": round(facts["elapsed"] / 60, 1),
            "torch": torch.__version__,
            "config": config.to_json(),
        }
    )


def _describe_data(names: list[str], config: TrainConfig) -> str:
    source = "cases of the BraTS 2021 training set" if all_brats_2021(names) else "labelled studies"
    phantoms = f" and {config.phantoms} generated phantoms" if config.phantoms else ""
    return f"{len(names)} {source}{phantoms}"


def _metrics(folder: RunFolder, facts: dict[str, Any]) -> dict[str, Any]:
    """What was measured: the final evaluation if the run has ended, and the selecting one."""
    metrics: dict[str, Any] = {}
    if "validation" in facts:
        metrics["selection"] = {
            "what": "Dice on the model's grid; the weights were selected by its mean, so these "
            "cases judge them kindly",
            **facts["validation"],
        }
    if folder.final_metrics.is_file():
        metrics["evaluation"] = json.loads(folder.final_metrics.read_text())
    return metrics


def _limitations(count: int) -> str:
    return (
        f"Trained on {count} real cases; expect errors, above all on tumours without enhancement, "
        "children, images after surgery, other registration or brain extraction, and any other "
        "disease. Check every result."
    )


def code_version() -> str:
    """Version of the installed distribution, with the commit when run from a checkout."""
    try:
        release = installed_version("segmamba-service")
    except PackageNotFoundError:
        release = "unreleased"
    commit = _commit(Path(__file__).parent.parent / ".git")
    return f"{release}+{commit[:12]}" if commit else release


def _commit(git: Path) -> str:
    """Commit that a checkout stands on; empty where there is none. Needs no git program."""
    try:
        head = (git / "HEAD").read_text().strip()
        return (git / head[5:]).read_text().strip() if head.startswith("ref: ") else head
    except OSError:
        return ""
