"""``segmamba evaluate``: score label maps against the truth, case by case.

Files are matched by *case name*: the file's name without ``.nii``/``.nii.gz`` and without a final
``_seg`` or ``-seg`` (BraTS 2021, BraTS 2023, nnU-Net); a file called only ``seg`` takes the name
of its folder. Both maps of a case must lie on one grid; nothing is resampled here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich import box
from rich.progress import Progress
from rich.table import Table

from model_core.cli import err, examples, out, say_warning
from model_core.errors import InputError, OptionError
from model_core.imaging.nifti import read_nifti
from model_core.imaging.volume import Volume
from model_core.labels import REGIONS, from_scheme
from model_core.metrics import CaseMetrics, evaluate_case, summarise, to_json
from model_core.types import Region

SchemeChoice = Literal["auto", "brats2021", "brats2023"]

_NIFTI: Final = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_TRUTH_MARK: Final = re.compile(r"(^|[-_])seg$", re.IGNORECASE)
_CONTRAST: Final = re.compile(r"[-_](t1|t1ce|t2|flair|t1n|t1c|t2w|t2f)$", re.IGNORECASE)
_COLUMNS: Final = (
    ("dice", "\nDice", "{:.3f}"),
    ("hd95_mm", "\nHD95", "{:.1f}"),
    ("lesion_dice", "LW-\nDice", "{:.3f}"),
)
"""Field, title and format; titles are narrow so that a case fits on a line of 80."""
_LEGEND: Final = (
    "Dice, HD95 (mm): as BraTS up to 2022; a region in one map only scores 0 and 373.13 mm. "
    "LW-Dice: the mean over lesions, as BraTS 2023. Mean: of the three Dice. "
    "--json has every score."
)


@dataclass(frozen=True)
class Pair:
    """One case: its name and its two files."""

    name: str
    prediction: Path
    truth: Path


@examples(
    "segmamba evaluate seg.nii.gz BraTS2021_00006_seg.nii.gz",
    "segmamba evaluate predictions/ BraTS2021/ --json scores.json",
    "segmamba evaluate predictions/ nnUNet_raw/Dataset001/labelsTr/ --scheme brats2023",
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
            help="How the files number enhancing tumour: 4 (brats2021) or 3 (brats2023). "
            "auto tells it from the values of each file.",
        ),
    ] = "auto",
) -> None:
    """Score label maps against the truth: Dice, HD95 and the lesion-wise scores of BraTS 2023.

    Give two files, or two folders whose files are matched by case name: CASE_seg.nii.gz
    (BraTS 2021), CASE-seg.nii.gz (BraTS 2023) and CASE.nii.gz (nnU-Net) all belong to CASE.
    Prediction and truth must have the same shape and place in space.

    Scores are given for the whole tumour (WT), the tumour core (TC) and the enhancing tumour (ET).
    """
    _require_folder_for(json_out)
    pairs, unmatched = find_pairs(prediction, truth)
    for side, names in unmatched.items():
        if names:
            say_warning(f"{len(names)} {side} without a partner: not scored, not in the means")
    cases = _score_all(pairs, scheme)
    console = out()
    console.print(_table(cases))
    console.print(_LEGEND, style="dim")
    if json_out:
        _write_json(json_out, cases, unmatched)


def find_pairs(prediction: Path, truth: Path) -> tuple[list[Pair], dict[str, list[str]]]:
    """Match predictions and truths by case name; two files are a pair whatever their names.

    Returns:
        pairs: in the order of their names.
        unmatched: the case names left over, under ``predictions`` and ``truths``.

    Raises:
        InputError: a path is missing, a case occurs twice, or nothing matches.
    """
    predictions = _label_files(prediction, "prediction")
    truths = _label_files(truth, "truth")
    if prediction.is_file() and truth.is_file():
        return [Pair(next(iter(truths)), prediction, truth)], {}
    common = sorted(predictions.keys() & truths.keys())
    if not common:
        raise InputError(
            "prediction",
            expected="label maps whose case names occur among the truths",
            got=f"none in common (predictions: {len(predictions)}, truths: {len(truths)})",
            way_out="Name both after the case: CASE_seg.nii.gz, CASE-seg.nii.gz or CASE.nii.gz.",
        )
    unmatched = {
        "predictions": sorted(predictions.keys() - truths.keys()),
        "truths": sorted(truths.keys() - predictions.keys()),
    }
    return [Pair(name, predictions[name], truths[name]) for name in common], unmatched


# ---------------------------------------------------------------- finding files


def _label_files(path: Path, argument: str) -> dict[str, Path]:
    """Label maps by case name: the file itself, or those of a folder and its direct subfolders."""
    if path.is_file():
        return {_case_name(path): path}
    if not path.is_dir():
        raise InputError(
            argument,
            expected="a label map or a folder",
            got="neither",
            way_out="Check the path.",
        )
    files = [file for file in (*path.glob("*"), *path.glob("*/*")) if _may_be_labels(file)]
    if not files:
        raise InputError(
            argument,
            expected="a folder with label maps (.nii, .nii.gz)",
            got="none in it or in its direct subfolders",
            way_out="Hand over the folder that holds the label maps or the case folders.",
        )
    return _by_case(files, argument)


def _by_case(files: list[Path], argument: str) -> dict[str, Path]:
    """One file per case; one marked ``_seg`` goes before one that only bears the case's name."""
    marked = [file for file in files if _TRUTH_MARK.search(_stem(file))]
    chosen: dict[str, Path] = {}
    for group in (marked, [file for file in files if file not in set(marked)]):
        found: dict[str, Path] = {}
        for file in sorted(group):
            if found.setdefault(_case_name(file), file) is not file:
                raise InputError(
                    argument,
                    expected="one label map per case",
                    got="two for the same case name",
                    way_out="Keep one of them in the folder, or hand over a more specific folder.",
                )
        chosen = found | chosen
    return chosen


def _may_be_labels(file: Path) -> bool:
    if file.name.startswith(".") or not _NIFTI.search(file.name) or not file.is_file():
        return False
    # nnU-Net keeps its contrasts (CASE_0000 …) in imagesTr and imagesTs
    return not (_CONTRAST.search(_stem(file)) or file.parent.name.startswith("images"))


def _case_name(file: Path) -> str:
    return _TRUTH_MARK.sub("", _stem(file)) or file.absolute().parent.name


def _stem(file: Path) -> str:
    return _NIFTI.sub("", file.name)


# ---------------------------------------------------------------- scoring


def _score_all(pairs: list[Pair], scheme: SchemeChoice) -> dict[str, CaseMetrics]:
    cases = {}
    with Progress(console=err(), transient=True, disable=len(pairs) == 1) as progress:
        shown = progress.track(pairs, description="Scoring cases")
        for number, pair in enumerate(shown, start=1):
            place = f" {number} of {len(pairs)} (in name order)" if len(pairs) > 1 else ""
            cases[pair.name] = _score(pair, scheme, place)
    return cases


def _score(pair: Pair, scheme: SchemeChoice, place: str) -> CaseMetrics:
    prediction = read_nifti(pair.prediction, argument=f"prediction{place}")
    truth = read_nifti(pair.truth, argument=f"truth{place}")
    _require_one_grid(prediction, truth, f"prediction{place}")
    numbering = None if scheme == "auto" else scheme
    return evaluate_case(
        from_scheme(prediction.array, numbering, argument=f"prediction{place}"),
        from_scheme(truth.array, numbering, argument=f"truth{place}"),
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


def _table(cases: Mapping[str, CaseMetrics]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("\n\nCase", overflow="fold")
    for _, title, _ in _COLUMNS:
        for region in REGIONS:
            table.add_column(f"{title}\n{region}", justify="right", no_wrap=True)
    table.add_column("\nMean\nDice", justify="right", no_wrap=True)
    for name, case in cases.items():
        table.add_row(name, *_cells(case), f"{case.mean_dice:.3f}")
    if len(cases) > 1:
        table.add_section()
        for row in _summary_rows(list(cases.values())):
            table.add_row(*row, style="bold")
    return table


def _cells(case: CaseMetrics) -> list[str]:
    return [
        form.format(getattr(case.regions[region], field))
        for field, _, form in _COLUMNS
        for region in REGIONS
    ]


def _summary_rows(cases: list[CaseMetrics]) -> Iterator[list[str]]:
    summary = summarise(cases)
    columns: list[tuple[str, Region, str]] = [
        (field, region, form) for field, _, form in _COLUMNS for region in REGIONS
    ]
    for statistic, title in (("mean", "mean"), ("sd", "± sd"), ("median", "median")):
        cells = [
            form.format(getattr(summary[region][field], statistic))
            for field, region, form in columns
        ]
        means = [getattr(summary[region]["dice"], statistic) for region in REGIONS]
        overall = f"{sum(means) / len(means):.3f}" if statistic == "mean" else ""
        yield [title, *cells, overall]


def _require_folder_for(json_out: Path | None) -> None:
    if json_out and not json_out.parent.is_dir():
        raise OptionError(
            "json",
            expected="a file in an existing folder",
            got="a folder that does not exist",
            way_out="Create the folder first.",
        )


def _write_json(
    path: Path, cases: Mapping[str, CaseMetrics], unmatched: Mapping[str, list[str]]
) -> None:
    report: dict[str, Any] = {
        **to_json(cases),
        "unmatched": {side: unmatched.get(side, []) for side in ("predictions", "truths")},
    }
    path.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
