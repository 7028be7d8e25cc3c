"""The options of ``segmamba train``, with their help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from training.commands.settings import EPOCH_STEPS

_RUN = "The run"
_DATA = "Data and cross-validation"
_LENGTH = "How long"
_MACHINE = "The machine"

Recipe = Annotated[
    str | None,
    typer.Argument(metavar="RECIPE", show_default=False, help="What to train, and by which rule."),
]
Data = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=_DATA,
        show_default=False,
        help="The data set: BraTS folders, an nnU-Net or a Decathlon data set (segmamba data "
        "verify checks it). A continued run knows it.",
    ),
]
Name = Annotated[
    str, typer.Option(rich_help_panel=_RUN, help="Name of the run, a folder inside --out.")
]
Out = Annotated[
    Path,
    typer.Option(rich_help_panel=_RUN, envvar="nnUNet_results", help="Folder of all runs."),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", rich_help_panel=_RUN, help="Continue the run of that name."),
]
FoldText = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_DATA,
        metavar="K|all",
        help="Cross-validation: validate on fold K (from 0), or on each fold in turn.",
    ),
]
Folds = Annotated[
    int | None,
    typer.Option(min=2, rich_help_panel=_DATA, help="Number of folds. (default: 5)"),
]
Validation = Annotated[
    str,
    typer.Option(
        rich_help_panel=_DATA,
        show_default=False,
        help="Validation cases: names or unique endings, comma-separated. (default: the data "
        "set's own, else every fifth case)",
    ),
]
PlanFile = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        rich_help_panel=_DATA,
        help="Sizes chosen by segmamba data plan. (default: planned now where the recipe "
        "leaves them open)",
    ),
]
Initial = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="RUN|BUNDLE",
        rich_help_panel=_RUN,
        help="Begin from the weights of a run or a bundle; a head with other channels is drawn "
        "anew.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SETTING=VALUE",
        rich_help_panel=_RUN,
        help="Change one setting, e.g. batch=1, patch=[96,96,96], augmentation.flip=0; the "
        "value is JSON, @FILE reads it from a file.",
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, rich_help_panel=_LENGTH, help="Optimiser steps.")]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1, rich_help_panel=_LENGTH, help=f"The same in epochs of {EPOCH_STEPS} steps."
    ),
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(rich_help_panel=_LENGTH, help="Time budget; the learning rate decays to fit it."),
]
Synthesis = Annotated[
    Path | None,
    typer.Option(
        file_okay=False,
        rich_help_panel=_DATA,
        help="Folder with labels/ and masks/ for --set synthetic=N synthetic studies.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        file_okay=False,
        rich_help_panel=_DATA,
        help="Folder of prepared cases, shared by runs. (default: inside the run)",
    ),
]
Export = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=_RUN,
        help="Where the bundle goes at the end. (default: inside the run)",
    ),
]
Device = Annotated[str, typer.Option(rich_help_panel=_MACHINE, help="cpu, cuda, cuda:1 or auto.")]
Devices = Annotated[
    int,
    typer.Option(min=1, rich_help_panel=_MACHINE, help="GPUs (or processes) of this machine."),
]
Nodes = Annotated[
    int, typer.Option(min=1, rich_help_panel=_MACHINE, help="Machines that work together.")
]
Precision = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_MACHINE,
        help="float32, bfloat16, float16 (GPU), or auto: what is fast here. (default: the "
        "recipe's)",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=_MACHINE,
        help="CPU threads. (default: the processors that this process may use)",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        rich_help_panel=_MACHINE,
        help="Processes that prepare patches; 0: none (little shared memory).",
    ),
]
LabelOption = Annotated[
    Literal["auto-declared", "brats2021", "brats2023"],
    typer.Option(
        "--labels",
        metavar="NAME",
        show_default=False,
        rich_help_panel=_DATA,
        help="How BraTS label maps number enhancing tumour: brats2021 (as 4) or brats2023 (as 3). "
        "(default: as the files' names say)",
    ),
]
