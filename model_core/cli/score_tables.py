"""How the scores of label maps look in a terminal: a line a case, then what they amount to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from rich import box
from rich.table import Table

from model_core.labels import REGIONS
from model_core.metrics import CaseMetrics, Spread, summarise
from model_core.types import Region

_COLUMNS: Final = (
    ("dice", "\nDice", "{:.3f}"),
    ("hd95_mm", "\nHD95", "{:.1f}"),
    ("lesion_dice", "LW-\nDice", "{:.3f}"),
)
"""Field, title and format; titles are narrow so that a case fits on a line of 80."""
BRATS_LEGEND: Final = (
    "Dice, HD95 (mm): as BraTS up to 2022; a region in one map only scores 0 and 373.13 mm. "
    "LW-Dice: the mean over lesions, as BraTS 2023. Mean: of the three Dice. "
    "--json has every score."
)
REGION_LEGEND: Final = (
    "Dice, HD95 (mm; pixels where a picture has no size), sensitivity: a region in one map only "
    "scores 0, 373.13 and 0. LW-Dice: the mean over lesions, each counting. --json has every score."
)


def brats_table(cases: Mapping[str, CaseMetrics]) -> Table:
    """WT, TC and ET: Dice, HD95 and lesion-wise Dice of every case, then their spread."""
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


def dice_table(cases: Mapping[str, CaseMetrics]) -> Table:
    """The Dice of every region in every case, whatever the regions are."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Dice", overflow="fold")
    for region in next(iter(cases.values())).regions:
        table.add_column(region, justify="right")
    table.add_column("mean", justify="right")
    for name, case in cases.items():
        dices = [scores.dice for scores in case.regions.values()]
        table.add_row(name, *(f"{value:.3f}" for value in (*dices, case.mean_dice)))
    return table


def region_table(cases: Mapping[str, CaseMetrics]) -> Table:
    """Mean and spread of the scores over the cases, a line a region."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("region", overflow="fold")
    for title in ("Dice", "HD95", "sensitivity", "LW-Dice"):
        table.add_column(title, justify="right")
    for region, scores in summarise(cases.values()).items():
        table.add_row(
            region,
            _with_sd(scores["dice"], ".3f"),
            _with_sd(scores["hd95_mm"], ".1f"),
            _with_sd(scores["sensitivity"], ".3f"),
            _with_sd(scores["lesion_dice"], ".3f"),
        )
    return table


def _with_sd(spread: Spread, form: str) -> str:
    shown = f"{spread.mean:{form}}"
    return shown if spread.sd is None else f"{shown} ± {spread.sd:{form}}"
