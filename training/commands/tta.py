"""``segmamba tta``: what test-time augmentation gains and costs, measured on one's own data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_core.cli import examples, out
from model_core.errors import OptionError
from training.commands import judge_options as o

if TYPE_CHECKING:
    from rich.table import Table

    from model_core.types import Tta
    from training.judge.tta import Comparison


@examples(
    "segmamba tta results/first BraTS2021/",
    "segmamba tta results/folds Dataset802_Xray --fold 0 --json tta.json",
    "segmamba tta segmamba-small BraTS2021/ --modes none,fast --limit 5",
)
def tta(  # noqa: PLR0913 - each parameter is an option of the command
    model: o.ModelArgument,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A data set, or a folder of cases with a truth.")
    ],
    modes: Annotated[
        str, typer.Option(help="Modes to compare, the first with each of the others.")
    ] = "none,fast,full",
    truth: o.Truth = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N cases only.")
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write every case's Dice and seconds here.")
    ] = None,
    fold: o.Fold = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    threads: o.Threads = None,
) -> None:
    """Measure test-time augmentation: Dice and seconds without, with few and with all mirrors.

    Cases that trained the model are left out: on them the gain would be another. Nothing is
    written but the --json file.
    """
    from dataclasses import replace

    from model_core.cli.interrupt import stop_on_interrupt
    from model_core.cli.show import StudyProgress
    from model_core.imaging.atomic import write_atomically
    from training.judge.inputs import find_inputs
    from training.judge.loading import load_model
    from training.judge.tta import compare_tta, unseen_cases

    chosen = _modes(modes)
    if json_out:
        json_out.parent.mkdir(parents=True, exist_ok=True)  # a wrong path fails now, not at the end
    o.prepare_process(threads)
    trained = load_model(model, fold=fold, device=device, precision=precision)
    inputs = find_inputs(data, trained, which="all", truth=truth)
    cases = unseen_cases(trained, inputs.cases)[:limit]
    with stop_on_interrupt() as cancelled, StudyProgress(total=len(cases)) as bars:
        comparison = compare_tta(
            trained, replace(inputs, cases=cases), chosen, bars=bars, cancelled=cancelled
        )
    console = out()
    console.print(_table(comparison))
    console.print(
        f"{len(cases)} cases that did not train the model. Dice: mean over the cases; seconds: "
        "median; cost: median of the cases' ratios.",
        style="dim",
    )
    if json_out:
        text = json.dumps(comparison.to_json(), indent=2, allow_nan=False)
        write_atomically(json_out, f"{text}\n".encode())


def _modes(text: str) -> tuple[Tta, ...]:
    from training.judge.tta import MODES

    found = tuple(name.strip() for name in text.split(","))
    if not set(found) <= set(MODES) or len(set(found)) != len(found):
        raise OptionError(
            "modes",
            expected=f"some of {', '.join(MODES)}, each once",
            got=repr(text),
            way_out="For example --modes none,full.",
        )
    return tuple(mode for name in found for mode in MODES if mode == name)


def _table(comparison: Comparison) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("--tta")
    titles = ("passes", *comparison.regions, "mean", "gain", "seconds", "cost")
    for title in titles:
        table.add_column(title, justify="right")
    for mode, passes in comparison.passes.items():
        table.add_row(
            mode,
            str(passes),
            *(f"{value:.3f}" for value in comparison.dice(mode).values()),
            f"{comparison.mean_dice(mode):.3f}",
            f"{comparison.gain(mode):+.4f}",
            f"{comparison.seconds(mode):.1f}",
            f"{comparison.cost(mode):.1f} x",
        )
    return table
