"""From a run to a model bundle: the best averaged weights and a card that says where they are from.

A run may be exported while it still goes on: what is best so far is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from model_core.checkpoints import CardDraft, save_bundle
from model_core.errors import BundleError, OptionError
from model_core.networks import Network, build_network
from training.card import draft_card, measured, why_no_bundle
from training.config import TrainConfig
from training.final import Court, Evaluation, judge
from training.judge.corrections import Corrections
from training.loop.checkpoint import best_weights
from training.naming import bundle_name
from training.runs.run_folder import RunFolder, read_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from training.data.dataset import CaseFiles, Dataset

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
    found: Mapping[str, Any] | None = None
    """What the search for corrections reported, for the card."""
    overwrite: bool = False
    half: bool = False
    """Store the weights in half precision: half the size; they are float32 again when loaded."""
    device: str = "cpu"
    """Where the bundle is judged."""

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are stored in."""
        return torch.float16 if self.half else torch.float32


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Cases with a truth that judge the bundle before it is written."""

    dataset: Dataset
    cases: Sequence[CaseFiles]
    console: Console | None = None


def export_bundle(
    folder: RunFolder,
    target: Path,
    *,
    options: ExportOptions | None = None,
    judges: Judges | None = None,
) -> Evaluation | None:
    """Write the best weights of a run as a bundle, judged first if there are cases to judge by.

    The run itself is not changed.

    Args:
        folder: the run, finished or not.
        target: the bundle's folder.
        options: name, version and what the card shall say.
        judges: their scores go into the card; without them those of the run's final evaluation do.

    Returns:
        The scores by the judges.

    Raises:
        BundleError: the folder exists and is not to be overwritten.
        CheckpointError: the run has saved nothing yet.
        OptionError: a task no bundle can hold, or a setting that an export cannot change.
    """
    options = options or ExportOptions()
    check_settings(options.settings)
    _check_target(target, options)
    best = best_weights(folder)
    trained = TrainConfig.from_json(best["config"])
    config = trained.with_settings(options.settings)
    _require_bundle(config)
    network: Network = build_network(config.network, **config.network_args)
    network.load_state_dict(best["weights"])

    def draft(evaluation: Mapping[str, Any] | None) -> CardDraft:
        own = evaluation is None
        metrics = measured(
            best.get("validation"),
            read_json(folder.final_metrics) if own else evaluation,
            as_carded=not own or all(_same(trained, config, name) for name in CARD_SETTINGS),
            validations=len(folder.records("validation")),
        )
        if options.found is not None:
            metrics["corrections"] = dict(options.found)
        name = bundle_name(options.name or target.resolve().name)
        return draft_card(
            folder, network, config, best, name=name, version=options.version, metrics=metrics
        )

    evaluation = None
    if judges is not None and judges.cases:
        evaluation = _judge(network, draft(None), judges, options)
    card = draft(None if evaluation is None else evaluation.to_json())
    save_bundle(target, network, card, dtype=options.dtype, overwrite=options.overwrite)
    return evaluation


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings that decide the weights."""
    for name in settings:
        if name not in CARD_SETTINGS:
            raise OptionError(
                "set",
                expected=f"one of {', '.join(CARD_SETTINGS)}",
                got=repr(name),
                way_out="Other settings decide the weights: train again with them.",
            )


def _judge(network: Network, card: CardDraft, judges: Judges, options: ExportOptions) -> Evaluation:
    """Score the bundle as its users will run it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        save_bundle(path, network, card, dtype=options.dtype)
        corrections = Corrections(steps=card.postprocess) if card.postprocess else None
        court = Court(corrections=corrections, console=judges.console)
        return judge(path, judges.dataset, judges.cases, device=options.device, court=court)


def _require_bundle(config: TrainConfig) -> None:
    reason = why_no_bundle(config)
    if reason is not None:
        raise OptionError(
            "run",
            expected="a run whose weights a bundle can hold",
            got=f"one that makes none: {reason}",
            way_out="Use the run itself: segmamba predict RUN INPUT --out DIR.",
        )


def _check_target(target: Path, options: ExportOptions) -> None:
    """Refuse a taken folder before anything is judged."""
    if target.exists() and not options.overwrite:
        raise BundleError(
            f"bundle {target.name}: the folder exists already. Choose another folder with --to."
        )


def _same(one: TrainConfig, other: TrainConfig, name: str) -> bool:
    return bool(getattr(one, name) == getattr(other, name))
