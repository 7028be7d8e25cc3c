"""``segmamba export``: the best weights of a run as a model bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model_core.cli import examples, out
from training.commands.settings import corrections_in, parse_settings

if TYPE_CHECKING:
    from training.export import Judges
    from training.runs.run_folder import RunFolder


@examples(
    "segmamba export results/first --to models/my-model",
    "segmamba export results/xv/fold_0 --to models/fold0 --data BraTS2021 --half",
    "segmamba export results/first --to models/tidy --set postprocess=@corrections.json",
    "segmamba segment CASE -o seg.nii.gz --model models/my-model",
)
def export(
    run: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Folder of the run, or of a fold.")
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder of the new bundle.")],
    name: Annotated[
        str | None, typer.Option(help="The bundle's name. (default: the folder's)")
    ] = None,
    version: Annotated[str, typer.Option(help="The bundle's version.")] = "1",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SETTING=VALUE",
            help="Let the card say another window, overlap or postprocess than the run; the value "
            "is JSON, @FILE reads it from a file.",
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store the weights in half precision: half the size.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True, help="The run's data: judge the bundle on its validation cases first."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to judge it: cpu, cuda or auto.")] = "auto",
) -> None:
    """Write the best weights of a run, finished or not, as a model bundle.

    A bundle holds a three-dimensional network for BraTS glioma and a card that says where it comes
    from and what it scored. Runs on other data are used as they are, by segmamba predict.
    """
    settings, found = corrections_in(parse_settings(set_ or []))
    from training.export import ExportOptions, export_bundle
    from training.runs.run_folder import RunFolder

    folder = RunFolder.existing(run.absolute().parent, run.absolute().name)
    options = ExportOptions(
        name=name,
        version=version,
        settings=settings,
        found=found,
        half=half,
        device=_device(device),
    )
    judges = None if data is None else _judges(folder, data)
    evaluation = export_bundle(folder, to, options=options, judges=judges)
    console = out()
    if evaluation is not None:
        from training.final import describe

        for case, scores in evaluation.cases.items():
            console.print(f"{case} · {describe(scores)}", markup=False)
    console.print(f"bundle written: {to}", soft_wrap=True, markup=False)


def _judges(folder: RunFolder, data: Path) -> Judges:
    from training.data.find import load_dataset
    from training.data.split import restore_split
    from training.export import Judges
    from training.request import remembered

    run = folder.path
    known = remembered(run.parent, run.name) or remembered(run.parent.parent, run.parent.name)
    dataset = load_dataset(data, labels=known.get("labels", "auto-declared"))
    split = restore_split(dataset, json.loads(folder.split.read_text()))
    return Judges(dataset=dataset, cases=split.validation, console=out())


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted
