"""Options that the judging commands share, and the process set up for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from model_core.cpu import THREADS_VARIABLE
from model_core.types import Tta

_RUN = "How to run"

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Folder of a run, of a set of folds (averaged), or of a bundle; or a bundle's name.",
    ),
]
Fold = Annotated[
    int | None,
    typer.Option(min=0, help="Of a set of folds, this one alone. (default: the mean of all)"),
]
Mirroring = Annotated[
    Tta,
    typer.Option(
        "--tta",
        metavar="MODE",
        help="Average over mirrored passes: none (1), fast (4; 3 on slices) or full (8; 4).",
    ),
]
Truth = Annotated[
    Path | None,
    typer.Option(
        exists=True, help="Label maps to score against, by case name. (default: the input's own)"
    ),
]
Device = Annotated[str, typer.Option(rich_help_panel=_RUN, help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(
        metavar="NAME",
        rich_help_panel=_RUN,
        help="Arithmetic of the convolutions; auto: what is fast on this machine.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        envvar=THREADS_VARIABLE,
        rich_help_panel=_RUN,
        help="CPU threads. (default: the processors that this process may use)",
    ),
]


def prepare_process(threads: int | None) -> None:
    """Set the allocator and the threads for long work on whole volumes."""
    from model_core.allocator import keep_freed_memory
    from model_core.cpu import limit_threads

    keep_freed_memory()
    limit_threads(threads)
