"""``segmamba predict``: label maps, corrected ones, scores and pictures for a folder of cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_core.cli import err, examples, out, say_error
from training.commands import judge_options as o

if TYPE_CHECKING:
    from rich.table import Table

    from training.judge.corrections import Corrections
    from training.judge.models import Model
    from training.judge.results import CaseResult, Results


@examples(
    "segmamba predict results/first BraTS2021_new/ --out predictions",
    "segmamba predict results/xray Dataset802_Xray --out predictions --tta none",
    "segmamba predict results/folds nnUNet_raw/Dataset137/imagesTs --out predictions --tta full",
    "segmamba predict results/folds/fold_0 case.nii.gz --out predictions --postprocess none",
    "segmamba predict segmamba-small cases/ --out p --postprocess corrections.json --truth labels/",
)
def predict(  # noqa: PLR0913 - each parameter is an option of the command
    model: o.ModelArgument,
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A data set (its test cases, or all), a folder of images or of cases, or one "
            "file; or a data set's number under nnUNet_raw.",
        ),
    ],
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")],
    tta: o.Mirroring = "fast",
    postprocess: Annotated[
        str,
        typer.Option(
            metavar="FILE|auto|none",
            help="Corrections: a file of segmamba postprocess find; auto: the model's own, if it "
            "has any.",
        ),
    ] = "auto",
    pictures: Annotated[
        int, typer.Option(min=0, metavar="N", help="Draw the first N cases; 0: none.")
    ] = 10,
    truth: o.Truth = None,
    cases: Annotated[
        str, typer.Option(help="Of a data set: test, labelled, all, or NAME,NAME.")
    ] = "auto",
    fold: o.Fold = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace all results in the folder, of any settings."),
    ] = False,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    threads: o.Threads = None,
) -> None:
    """Predict cases with a trained model, correct the label maps, score and draw them.

    Writes OUT/raw (as the network gave them), OUT/postprocessed (where corrections are known),
    OUT/pictures and OUT/summary.json (what the corrections changed; scores where a truth is
    known). Label maps lie on the cases' own grids, in the data set's own values and format
    (.nii.gz, or .png for pictures).

    Label maps that are there already are kept if the same weights made them: a call that was
    stopped goes on. A case that fails is reported and the others go on (exit code 1).
    """
    from model_core.cli.interrupt import stop_on_interrupt
    from model_core.cli.show import StudyProgress
    from training.judge.inputs import find_inputs
    from training.judge.loading import load_model
    from training.judge.predict import PredictOptions, predict_cases

    o.prepare_process(threads)
    trained = load_model(model, fold=fold, device=device, precision=precision)
    inputs = find_inputs(source, trained, which=cases, truth=truth)
    options = PredictOptions(
        tta=tta,
        corrections=_corrections(trained, postprocess),
        pictures=pictures,
        overwrite=overwrite,
    )
    with stop_on_interrupt() as cancelled, StudyProgress(total=len(inputs.cases)) as bars:
        results = predict_cases(trained, inputs, to, options, bars=bars, cancelled=cancelled)
    _show(results, to)
    if results.failed:
        raise typer.Exit(1)


def _corrections(model: Model, wish: str) -> Corrections | None:
    from training.judge.corrections import load_corrections

    if wish == "none":
        return None
    return model.own_corrections() if wish == "auto" else load_corrections(Path(wish))


def _show(results: Results, folder: Path) -> None:
    for failure in results.failed:
        say_error(f"{failure.name}: {failure.reason}")
    console = out()
    if results.done:
        console.print(_table(results))
    kept = sum(not result.predicted for result in results.done)
    line = f"{len(results.done)} of {len(results.done) + len(results.failed)} cases done"
    console.print(line + (f", {kept} of them kept from before" if kept else ""))
    changed = [r.changed_voxels for r in results.done if r.changed_voxels is not None]
    if changed:
        gains = ", ".join(f"{region} {gain:+.3f}" for region, gain in results.gain().items())
        console.print(
            f"corrections changed {sum(count > 0 for count in changed)} of {len(changed)} cases"
            + (f"; Dice {gains}" if gains else "")
        )
    seen = {name for name in results.scores("raw") if name in results.trained_on}
    if seen:
        err().print(
            f"warning: {len(seen)} of the scored cases trained this model; their scores flatter it",
            style="yellow",
        )
    console.print(f"results in {folder}", soft_wrap=True, markup=False)


def _table(results: Results) -> Table:
    """One line a case: volumes, and Dice (after the corrections, if any) where it is known."""
    from rich import box
    from rich.table import Table

    scores = results.scores("postprocessed") or results.scores("raw")
    regions = [region.name for region in results.task.regions]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("case", overflow="fold")
    for region in regions:
        unit = "pixels" if results.done[0].voxel_ml is None else "mL"
        table.add_column(f"{region} {unit}", justify="right")
    for region in regions if scores else ():
        table.add_column(f"{region} Dice", justify="right")
    table.add_column("seconds", justify="right")
    for result in results.done:
        score = scores.get(result.name)
        dices = [f"{score.regions[r].dice:.3f}" if score else "" for r in regions]
        table.add_row(
            result.name,
            *(_size(result, region) for region in regions),
            *(dices if scores else ()),
            f"{result.seconds:.1f}",
        )
    return table


def _size(result: CaseResult, region: str) -> str:
    return f"{result.sizes[region]:.{0 if result.voxel_ml is None else 1}f}"
