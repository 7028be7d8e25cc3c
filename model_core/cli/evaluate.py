"""``segmamba evaluate``: score label maps against the truth, case by case.

BraTS glioma (WT, TC, ET) unless a label set is named (`model_core.cli.label_sets`). Files are
matched by case name (`model_core.cli.pairs`). Both maps of a case must lie on one grid; nothing is
resampled here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import Progress

from model_core.cli import err, examples, out, say_warning
from model_core.cli.label_sets import LabelSet, parse_labels, read_dataset_json, read_map
from model_core.cli.pairs import NIFTI, NIFTI_OR_PNG, Pair, find_pairs
from model_core.cli.score_tables import (
    BRATS_LEGEND,
    REGION_LEGEND,
    brats_table,
    dice_table,
    region_table,
)
from model_core.errors import InputError, OptionError
from model_core.imaging.declared import declared_scheme
from model_core.imaging.nifti import read_nifti
from model_core.imaging.volume import Volume
from model_core.labels import from_scheme
from model_core.metrics import (
    PLAIN_RULES,
    CaseMetrics,
    LesionRules,
    evaluate_case,
    evaluate_masks,
    to_json,
)

SchemeChoice = Literal["auto", "brats2021", "brats2023"]


@examples(
    "segmamba evaluate seg.nii.gz BraTS2021_00006_seg.nii.gz",
    "segmamba evaluate predictions/ BraTS2021/ --json scores.json",
    "segmamba evaluate predictions/ nnUNet_raw/Dataset001/labelsTr/ --scheme brats2023",
    "segmamba evaluate out/raw/ Dataset802/labelsTr/ --dataset-json Dataset802/dataset.json",
    "segmamba evaluate mine.png truth.png --labels 1=blob,2=core,1+2=whole",
)
def evaluate(
    prediction: Annotated[
        Path,
        typer.Argument(help="A predicted label map (.nii, .nii.gz), or a folder of them."),
    ],
    truth: Annotated[
        Path,
        typer.Argument(help="The true label map, or a folder (flat, or one folder per case)."),
    ],
    json_out: Annotated[
        Path | None,
        typer.Option("--json", help="Write all scores and their summary to this file."),
    ] = None,
    scheme: Annotated[
        SchemeChoice,
        typer.Option(
            "--scheme",
            "--label-scheme",
            help="How the files number enhancing tumour: 4 (brats2021) or 3 (brats2023). auto: as "
            "each file declares, by its header or its name; a prediction that declares nothing "
            "is numbered as its truth.",
        ),
    ] = "auto",
    dataset_json: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Other data than BraTS glioma: an nnU-Net or Decathlon dataset.json, whose labels "
            "and regions are scored by name. Maps may then be .png as well.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="VALUE=NAME,…",
            help="Likewise, named here: 1=blob,2=core,1+2=whole.",
        ),
    ] = None,
) -> None:
    """Score label maps against the truth: Dice, HD95 and the lesion-wise scores of BraTS 2023.

    Give two files, or two folders whose files are matched by case name: CASE_seg.nii.gz
    (BraTS 2021), CASE-seg.nii.gz (BraTS 2023) and CASE.nii.gz (nnU-Net) all belong to CASE.
    Prediction and truth must have the same shape and place in space.

    Scores are given for the whole tumour (WT), the tumour core (TC) and the enhancing tumour (ET),
    or for the labels and regions that --dataset-json or --labels declares.
    """
    label_set = _label_set(dataset_json, labels, scheme)
    _require_folder_for(json_out)
    endings = NIFTI_OR_PNG if label_set else NIFTI
    pairs, unmatched = find_pairs(prediction, truth, endings)
    for side, names in unmatched.items():
        if names:
            say_warning(f"{len(names)} {side} without a partner: not scored, not in the means")
    cases = _score_all(pairs, label_set or scheme)
    _show(cases, brats=label_set is None)
    if json_out:
        rules = PLAIN_RULES if label_set else LesionRules()
        _write_json(json_out, cases, unmatched, rules)


def _label_set(
    dataset_json: Path | None, labels: str | None, scheme: SchemeChoice
) -> LabelSet | None:
    """The label set that is asked for; None for BraTS glioma."""
    given = sum((dataset_json is not None, labels is not None, scheme != "auto"))
    if given > 1:
        raise OptionError(
            "labels",
            expected="at most one of --scheme, --dataset-json and --labels",
            got=f"{given} of them",
            way_out="--scheme is for BraTS glioma, the others are for any other data.",
        )
    if dataset_json is not None:
        return read_dataset_json(dataset_json)
    return None if labels is None else parse_labels(labels)


# ---------------------------------------------------------------- scoring


def _score_all(pairs: list[Pair], labels: SchemeChoice | LabelSet) -> dict[str, CaseMetrics]:
    cases = {}
    with Progress(console=err(), transient=True, disable=len(pairs) == 1) as progress:
        shown = progress.track(pairs, description="Scoring cases")
        for number, pair in enumerate(shown, start=1):
            place = f" {number} of {len(pairs)} (in name order)" if len(pairs) > 1 else ""
            cases[pair.name] = _score(pair, labels, place)
    return cases


def _score(pair: Pair, labels: SchemeChoice | LabelSet, place: str) -> CaseMetrics:
    mine, theirs = f"prediction{place}", f"truth{place}"
    read = read_map if isinstance(labels, LabelSet) else read_nifti
    prediction = read(pair.prediction, argument=mine)
    truth = read(pair.truth, argument=theirs)
    _require_one_grid(prediction, truth, mine)
    if isinstance(labels, LabelSet):
        return evaluate_masks(
            labels.masks(prediction.array, mine),
            labels.masks(truth.array, theirs),
            truth.spacing_mm,
            rules=PLAIN_RULES,
        )
    its = declared_scheme(pair.truth) if labels == "auto" else labels
    own = declared_scheme(pair.prediction) or its if labels == "auto" else labels
    return evaluate_case(
        from_scheme(prediction.array, own, argument=mine),
        from_scheme(truth.array, its, argument=theirs),
        truth.spacing_mm,
    )


def _require_one_grid(prediction: Volume, truth: Volume, argument: str) -> None:
    mine, theirs = prediction.grid, truth.grid
    if mine.matches(theirs):
        return
    same_shape = mine.shape == theirs.shape
    which = "affine (place in space)" if same_shape else "shape"
    apart = f", {mine.distance_mm(theirs.affine):.3g} mm apart" if same_shape else ""
    raise InputError(
        argument,
        expected=f"the truth's {which}: {theirs.describe()}",
        got=f"{mine.describe()}{apart}",
        way_out="Bring the prediction onto the truth's grid first (nearest neighbour), or segment "
        "the study that the truth was drawn on.",
    )


# ---------------------------------------------------------------- showing


def _show(cases: Mapping[str, CaseMetrics], *, brats: bool) -> None:
    console = out()
    if brats:
        console.print(brats_table(cases))
    else:
        console.print(dice_table(cases))
        console.print(region_table(cases))
    console.print(BRATS_LEGEND if brats else REGION_LEGEND, style="dim")


def _require_folder_for(json_out: Path | None) -> None:
    if json_out and not json_out.parent.is_dir():
        raise OptionError(
            "json",
            expected="a file in an existing folder",
            got="a folder that does not exist",
            way_out="Create the folder first.",
        )


def _write_json(
    path: Path,
    cases: Mapping[str, CaseMetrics],
    unmatched: Mapping[str, list[str]],
    rules: LesionRules,
) -> None:
    report: dict[str, Any] = {
        **to_json(cases, rules=rules),
        "unmatched": {side: unmatched.get(side, []) for side in ("predictions", "truths")},
    }
    path.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
