"""From a run to a model bundle: the best averaged weights and a card that says where they are from.

A run may be exported while it still goes on: what is best so far is written.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model_core.checkpoints import CardDraft, load_bundle, save_bundle
from model_core.checkpoints.card import TrainingRecord
from model_core.errors import OptionError
from model_core.imaging.study import StudyFiles
from model_core.inference.segmenter import Segmenter
from model_core.metrics import CaseMetrics, to_json
from model_core.networks import Network, build_network, network_config, network_name
from model_core.postprocess import parse_steps
from training.checkpoint import load_checkpoint
from training.config import TrainConfig
from training.naming import all_brats_2021, bundle_name, shown_names
from training.run_folder import RunFolder, write_json
from training.validate import evaluate_studies

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


CARD_SETTINGS = ("window", "overlap", "postprocess")
"""Settings of a config that only say how its weights are used; an export may change them."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What the exported bundle is called and says."""

    name: str | None = None
    """The bundle's name; the target folder's when not given."""
    version: str = "1"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """`CARD_SETTINGS` that differ from the run's."""
    overwrite: bool = False
    half: bool = False
    """Store the weights in half precision: half the size; they are float32 again when loaded."""
    device: str = "cpu"
    """Where the final evaluation runs."""

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are stored in."""
        return torch.float16 if self.half else torch.float32


@dataclass(frozen=True, kw_only=True)
class Best:
    """The weights that an export takes, and what is known about them."""

    config: TrainConfig
    weights: dict[str, Any]
    facts: dict[str, Any]
    """Step, elapsed seconds and, if they were validated, the validation."""


def export_bundle(
    folder: RunFolder,
    target: Path,
    *,
    options: ExportOptions | None = None,
    studies: Sequence[StudyFiles] = (),
) -> dict[str, CaseMetrics]:
    """Write the best weights of a run as a bundle, judged first if there are studies to judge by.

    Args:
        folder: the run, finished or not.
        target: the bundle's folder.
        options: name, version and what the card shall say.
        studies: with ground truth; their scores go into the card and ``final_metrics.json``.

    Returns:
        The scores of the studies, by the case's shown name.

    Raises:
        BundleError: the folder exists and is not to be overwritten.
        CheckpointError: the run has saved nothing yet.
        OptionError: a setting that an export cannot change.
    """
    options = options or ExportOptions()
    best = _best(folder, options.settings)
    network: Network = build_network(best.config.network, **best.config.network_args)
    network.load_state_dict(best.weights)
    name = bundle_name(options.name or target.resolve().name)
    results = {}
    if studies:
        draft = draft_card(folder, best, network, name=name, version=options.version)
        results = _judge(network, draft, studies, options)
        write_json(folder.final_metrics, to_json(results))
    draft = draft_card(folder, best, network, name=name, version=options.version)
    save_bundle(target, network, draft, dtype=options.dtype, overwrite=options.overwrite)
    return results


def _judge(
    network: Network, draft: CardDraft, studies: Sequence[StudyFiles], options: ExportOptions
) -> dict[str, CaseMetrics]:
    """Score the bundle as its users will run it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        save_bundle(path, network, draft, dtype=options.dtype)
        return evaluate_studies(Segmenter(load_bundle(path), device=options.device), studies)


def draft_card(
    folder: RunFolder, best: Best, network: nn.Module, *, name: str, version: str
) -> CardDraft:
    """The card of a run's best weights."""
    config = best.config
    split = json.loads(folder.split.read_text())
    from_brats = all_brats_2021(split["training"])
    return CardDraft(
        name=name,
        version=version,
        family=network_name(network),
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
        postprocess=parse_steps(config.postprocess),
        training=_training_record(split, config, best.facts),
        metrics=_metrics(folder, best.facts),
        licence=BRATS_LICENCE if from_brats else UNKNOWN_LICENCE,
        intended_use=INTENDED_USE,
        limitations=_limitations(len(split["training"])),
        citation=f"{CITATION} {BRATS_CITATION}" if from_brats else CITATION,
    )


def _best(folder: RunFolder, settings: Mapping[str, Any]) -> Best:
    """The best validated average (else the last one), its config with `settings`, and its facts."""
    for name in settings:
        if name not in CARD_SETTINGS:
            raise OptionError(
                "set",
                expected=f"one of {', '.join(CARD_SETTINGS)}",
                got=repr(name),
                way_out="Other settings decide the weights: train again with them.",
            )
    if folder.best.is_file():
        content = load_checkpoint(folder.best)
        weights = content.pop("weights")
    else:
        content = load_checkpoint(folder.last)
        weights = {name: value for name, value in content["ema"].items() if name != "updates"}
    known = ("step", "elapsed", "validation")
    facts: dict[str, Any] = {name: content[name] for name in known if name in content}
    config = TrainConfig.from_json(content["config"]).with_settings(settings)
    return Best(config=config, weights=weights, facts=facts)


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
