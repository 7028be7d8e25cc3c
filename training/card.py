"""The draft of a bundle's card: what a run's config, split and scores say about its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import nn

from model_core.checkpoints import CardDraft
from model_core.checkpoints.card import TrainingRecord
from model_core.networks import network_config, network_name
from model_core.postprocess import parse_steps
from model_core.provenance.environment import commit_at, package_version
from model_core.types import LabelScheme
from training.config import TrainConfig
from training.naming import all_brats_2021, all_brats_glioma, shown_names
from training.runs.run_folder import RunFolder, read_json

CITATIONS: Mapping[str, str] = {
    "segmamba": "Xing et al., SegMamba, MICCAI 2024, arXiv 2401.13560.",
    "segmamba-brtm": "Network: the public repository Oshadha345/BraTSMamba.",
    "lightm-unet": "Liao et al., LightM-UNet, arXiv 2403.05246.",
}
BRATS_CITATION = (
    "Data: BraTS 2021, doi 10.7937/jc8x-9874; Baid et al. 2021, arXiv 2107.02314; "
    "Menze et al. 2015, IEEE TMI 34(10); Bakas et al. 2017, Scientific Data 4, 170117."
)
BRATS_LICENCE = "MIT (weights); trained on BraTS 2021 data, which is under CC BY 4.0"
UNKNOWN_LICENCE = "not stated: the rights in the training data decide"


def why_no_bundle(config: TrainConfig) -> str | None:
    """Why a run of this config makes no bundle; ``None`` if it makes one.

    A bundle is fed with BraTS contrasts and answers with BraTS labels, in three dimensions.
    """
    if not config.task.is_brats:
        return "its channels and labels are not those of BraTS glioma"
    if config.task.dims != 3:
        return "its network sees single slices, a bundle's whole volumes"
    if config.normalisation not in get_args(CardDraft.model_fields["normalisation"].annotation):
        return f"no card describes the normalisation {config.normalisation}"
    if config.spacing_mm is None:
        return "it trains on each image's own spacing (spacing_mm is null)"
    return None


def draft_card(
    folder: RunFolder,
    network: nn.Module,
    config: TrainConfig,
    facts: Mapping[str, Any],
    *,
    name: str,
    version: str,
    metrics: Mapping[str, Any],
) -> CardDraft:
    """The card of a run's weights.

    Args:
        folder: the run; its ``split.json`` and ``dataset.json`` are read.
        network: with the weights.
        config: the run's, with what the card shall say differently.
        facts: ``step`` and ``elapsed`` (seconds) of the weights.
        name: the bundle's.
        version: the bundle's.
        metrics: see `measured`.
    """
    assert config.spacing_mm is not None, "why_no_bundle has refused it"
    split = json.loads(folder.split.read_text())
    citation = CITATIONS[config.network]
    public = all_brats_2021(split["training"])
    return CardDraft(
        name=name,
        version=version,
        family=network_name(network),
        network=network_config(network),
        channels=config.task.channels,  # type: ignore[arg-type]  # is_brats: they are contrasts
        heads=config.task.heads,
        outputs=config.task.outputs,
        label_scheme=_label_scheme(folder, split["training"]),
        orientation=config.orientation,
        spacing_mm=config.spacing_mm,
        normalisation=config.normalisation,  # type: ignore[arg-type]  # why_no_bundle: it is one
        window=config.sliding_window,
        overlap=config.overlap,
        mirror_axes=(0, 1, 2) if config.augmentation.flip else (),
        tta="none",
        postprocess=parse_steps(config.postprocess),
        training=_training_record(split, config, facts),
        metrics=dict(metrics),
        licence=BRATS_LICENCE if public and config.initial is None else UNKNOWN_LICENCE,
        intended_use=_intended_use(config.task.channels),
        limitations=_limitations(len(split["training"])),
        citation=f"{citation} {BRATS_CITATION}" if public else citation,
    )


def measured(
    selection: Mapping[str, Any] | None,
    evaluation: Mapping[str, Any] | None,
    *,
    as_carded: bool,
    validations: int = 2,
) -> dict[str, Any]:
    """What was measured: the validation that chose the weights, and the final evaluation.

    Args:
        selection: the validation that the checkpoint was kept with.
        evaluation: of whole cases on their native grids.
        as_carded: whether the evaluation was done with the card's window and corrections.
        validations: how many the run had; a single one has chosen nothing.
    """
    metrics: dict[str, Any] = {}
    if selection is not None:
        kindly = "the weights were selected by its mean, so these cases judge them kindly"
        only = "the run's only validation, at its end: it has selected nothing"
        metrics["selection"] = {
            "what": f"Dice on the model's grid; {kindly if validations > 1 else only}",
            **selection,
        }
    if evaluation is not None:
        metrics["evaluation"] = dict(evaluation)
        if not as_carded:
            metrics["evaluation"]["what"] = (
                "the run's own final evaluation: window, overlap or post-processing of this card "
                "were changed at the export and are not in these scores"
            )
    return metrics


def code_version() -> str:
    """Version of the installed distribution, with the commit when run from a checkout."""
    release, here = package_version("segmamba-service") or "unreleased", commit_at()
    return f"{release}+{here[:12]}" if here else release


def _label_scheme(folder: RunFolder, names: Sequence[str]) -> LabelScheme:
    """The numbering of the data that the run was trained on: ET is 4 up to BraTS 2021, then 3."""
    dataset = read_json(folder.path / "dataset.json")
    if dataset is not None:
        return "brats2021" if dataset["values"].get("4") == 3 else "brats2023"
    return "brats2021" if all_brats_2021(names) or not all_brats_glioma(names) else "brats2023"


def _training_record(
    split: Mapping[str, list[str]], config: TrainConfig, facts: Mapping[str, Any]
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


def _describe_data(names: Sequence[str], config: TrainConfig) -> str:
    source = "cases of the BraTS 2021 training set" if all_brats_2021(names) else "labelled studies"
    parts = [f"{len(names)} {source}"]
    if config.phantoms:
        parts.append(f"{config.phantoms} generated phantoms")
    if config.synthetic:
        parts.append(f"{config.synthetic} synthetic studies")
    words = " and ".join(parts)
    return words if config.initial is None else f"{words}; begun from weights {config.initial}"


def _intended_use(channels: Sequence[str]) -> str:
    shown = {"t1": "T1", "t1ce": "T1ce", "t2": "T2", "flair": "FLAIR"}
    names = [shown[channel] for channel in shown if channel in channels]
    images = " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
    return (
        "Research and education: outlining glioma on pre-operative, co-registered, skull-stripped "
        f"{images} images of adults. Not a medical device."
    )


def _limitations(count: int) -> str:
    return (
        f"Trained on {count} real cases; expect errors, above all on tumours without enhancement, "
        "children, images after surgery, other registration or brain extraction, and any other "
        "disease. Check every result."
    )
