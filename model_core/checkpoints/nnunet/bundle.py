"""The bundle that segments as the trained nnU-Net folder does.

What the folder tells is obeyed: channels, labels, orientation, spacing, patch, normalisation,
mirror axes, corrections, and nnU-Net's own rules for laying windows and reading regions. What it
does not tell (licence, intended use) the caller may add as a card; nothing there may contradict it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from model_core.checkpoints.bundle import check_agrees, faults, parse_json, save_bundle
from model_core.checkpoints.card import CardDraft, ModelCard
from model_core.checkpoints.nnunet.folder import Results, Which, find_results, read_json
from model_core.checkpoints.nnunet.labels import Meaning, read_labels
from model_core.checkpoints.nnunet.plans import BRATS_STORED, PlannedInput, read_plans
from model_core.checkpoints.nnunet.postprocess import read_postprocessing
from model_core.checkpoints.nnunet.weights import Trained, build_trained, read_trained
from model_core.errors import BundleError, OptionError
from model_core.networks import Network, network_config, network_name

OVERLAP: Final = 0.5
"""Of nnU-Net's windows, unless a caller of its predictor asks for another step."""
_TEXTS: Final[Mapping[str, str]] = {
    "version": "1",
    "label_scheme": "brats2023",
    "licence": "not stated: the rights in the training data decide",
    "intended_use": (
        "Research and education: outlining glioma on pre-operative, co-registered, skull-stripped "
        "T1, T1ce, T2 and FLAIR images of adults. Not a medical device."
    ),
    "limitations": (
        "Trained with nnU-Net and imported; equal to nnU-Net's own prediction where a study has "
        "the spacing and the stored orientation of the training data. Check every result."
    ),
    "citation": (
        "Isensee et al., nnU-Net, Nature Methods 18, 203 (2021); {network}."
    ),
}  # fmt: skip
_JUDGED: Final[Mapping[frozenset[str], str]] = {
    frozenset({"NCR", "ED", "ET"}): "WT",
    frozenset({"NCR", "ET"}): "TC",
    frozenset({"NCR"}): "NCR",
    frozenset({"ED"}): "ED",
    frozenset({"ET"}): "ET",
}
_PAPERS: Final[Mapping[str, str]] = {
    "segmamba": "Xing et al., SegMamba, MICCAI 2024",
    "segmamba-brtm": "SegMamba-BRTM, github.com/Oshadha345/BraTSMamba",
    "lightm-unet": "Liao et al., LightM-UNet, arXiv 2403.05246",
}


@dataclass(frozen=True, kw_only=True)
class NnunetOptions:
    """What the caller of an import may choose.

    Attributes:
        fold: ``all`` or a number; None takes ``all`` if it was trained, else 0.
        which: the final checkpoint or the best one; None takes the final one if there is one.
        stored: how the training files were stored, e.g. ``"LPS"``, which nnU-Net does not record;
            None: as the plans' reader turns them, else as BraTS does, with a warning.
        postprocess: a ``postprocessing.json``; ``auto`` looks in the folder; ``none`` takes none.
        card: JSON with card fields that the folder does not tell.
    """

    fold: str | None = None
    which: Which | None = None
    stored: str | None = None
    postprocess: Path | Literal["auto", "none"] = "auto"
    card: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The bundle that was made, and what a person should know about it."""

    folder: Path
    card: ModelCard
    fold: str
    warnings: tuple[str, ...]


def import_nnunet(
    path: str | Path, out: str | Path | None = None, options: NnunetOptions | None = None
) -> Imported:
    """Make a bundle of a trained nnU-Net results folder.

    Args:
        path: the results folder (``TRAINER__PLANS__CONFIGURATION``), or its parent if that holds
            one alone.
        out: the bundle folder to create; None: one named as the card, in the working folder.
        options: which fold, which checkpoint, and what the folder does not tell.

    Raises:
        OptionError: the folder is not one, or asks for what a bundle cannot do.
        CheckpointError: the network is not one of ours, or the checkpoint is damaged.
        BundleError: the bundle exists, or the card given contradicts the folder.
    """
    options = options or NnunetOptions()
    results = find_results(Path(path), fold=options.fold, which=options.which)
    trained = read_trained(results.checkpoint)
    meaning = read_labels(results.dataset)
    planned = read_plans(results.plans, trained.configuration, stored=options.stored)
    steps, warnings = _corrections(results, meaning, options)
    network = build_trained(trained, results.plans)
    told = {
        **_obeyed(meaning, planned, trained),
        "family": network_name(network),
        "network": network_config(network),
    }
    usual: dict[str, Any] = {
        **_texts(results, trained, network, out),
        "tta": "full" if trained.mirror_axes else "none",
        "postprocess": list(steps),
        "training": _training(results, trained),
        "metrics": _metrics(results, meaning),
    }
    given = {} if options.card is None else parse_json(options.card, subject="the card")
    check_agrees(given, told)
    card = _draft(usual | given | told)
    folder = Path(card.name) if out is None else Path(out)
    return Imported(
        folder=folder,
        card=save_bundle(folder, network, card),
        fold=results.fold,
        warnings=(*_doubts(results, meaning, planned), *warnings),
    )


def _obeyed(meaning: Meaning, planned: PlannedInput, trained: Trained) -> dict[str, Any]:
    """The fields in which the folder has the last word."""
    return {
        "channels": list(meaning.channels),
        "heads": meaning.heads,
        "outputs": list(meaning.outputs),
        "orientation": planned.orientation,
        "spacing_mm": list(planned.spacing_mm),
        "normalisation": planned.normalisation,
        "window": list(planned.window),
        "overlap": OVERLAP,
        "tiling": "nnunet",
        "region_rule": "painted",
        "mirror_axes": list(trained.mirror_axes),
    }


def _draft(fields: Mapping[str, Any]) -> CardDraft:
    try:
        return CardDraft.model_validate(dict(fields))
    except ValidationError as error:
        raise BundleError(
            f"the card does not fit: {faults(error)}. See docs/how-to/nnunet.md for what a card "
            "may add."
        ) from error


def _corrections(
    results: Results, meaning: Meaning, options: NnunetOptions
) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    chosen = options.postprocess
    if chosen == "none":
        return (), ()
    if isinstance(chosen, Path):
        return read_postprocessing(read_json(chosen), meaning.tissues)
    found = results.postprocessing
    return read_postprocessing(read_json(found[-1]), meaning.tissues) if found else ((), ())


def _doubts(results: Results, meaning: Meaning, planned: PlannedInput) -> tuple[str, ...]:
    doubts = []
    if results.which == "best":
        doubts.append(f"fold {results.fold}: checkpoint_best.pth was taken, not the final one")
    if planned.assumed:
        doubts.append(
            f"the training files are taken to be stored {BRATS_STORED}, as those of BraTS are; "
            "nnU-Net does not record it. If they are not, every study is turned wrongly: look at "
            "one (docs/how-to/nnunet.md) and give --stored"
        )
    if meaning.tissues != {1: "NCR", 2: "ED", 3: "ET"}:
        numbering = ", ".join(f"{value} {name}" for value, name in sorted(meaning.tissues.items()))
        doubts.append(
            f"the data set numbers its labels {numbering}; label maps of this bundle follow BraTS"
        )
    return tuple(doubts)


def _training(results: Results, trained: Trained) -> dict[str, Any]:
    cases = results.dataset.get("numTraining")
    data = str(results.plans.get("dataset_name", "a data set of nnU-Net"))
    return {
        "data": data if cases is None else f"{data}, {cases} labelled cases in all",
        "code_version": "nnU-Net v2",
        "recipe": trained.trainer,
        "plans": str(results.plans.get("plans_name", "")),
        "configuration": trained.configuration,
        "fold": results.fold,
        "checkpoint": results.which,
        "epochs": trained.epochs,
    }


def _metrics(results: Results, meaning: Meaning) -> dict[str, Any]:
    """nnU-Net's own Dice on the fold's validation cases; none for ``all``, which learnt them."""
    if results.fold == "all" or not results.summary.is_file():
        return {}
    dice = {}
    for key, scores in read_json(results.summary).get("mean", {}).items():
        judged = frozenset(meaning.tissues.get(int(value), "") for value in re.findall(r"\d+", key))
        score = scores.get("Dice")
        if judged in _JUDGED and isinstance(score, int | float) and math.isfinite(score):
            dice[_JUDGED[judged]] = score
    what = f"nnU-Net's Dice of fold {results.fold}'s validation cases, without post-processing"
    return {"nnunet_validation": {"what": what, "dice": dice}} if dice else {}


def _texts(
    results: Results, trained: Trained, network: Network, out: str | Path | None
) -> dict[str, str]:
    texts = dict(_TEXTS)
    texts["citation"] = texts["citation"].format(network=_PAPERS[network_name(network)])
    dataset = str(results.plans.get("dataset_name", "nnunet"))
    trainer = trained.trainer.removeprefix("nnUNetTrainer")
    texts["name"] = bundle_name(f"{dataset}-{trainer}" if out is None else Path(out).resolve().name)
    return texts


def bundle_name(text: str) -> str:
    """``Dataset137_BraTS2021-SegMamba`` → ``dataset137_brats2021-segmamba``.

    Raises:
        OptionError: nothing is left that a bundle may be called.
    """
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:64]
    if not name:
        raise OptionError(
            "output",
            expected="a folder name with letters or digits",
            got=repr(text),
            way_out="Choose another folder with -o, or give the card a name.",
        )
    return name
