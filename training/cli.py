"""``segmamba train``: start, continue and export training runs.

Also runs as ``python -m training.cli``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from model_core.cli import say_error
from model_core.errors import OptionError, SegMambaError

train = typer.Typer(
    name="train",
    help="Train a network on a folder of labelled studies, or export a run's best weights.",
    invoke_without_command=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@train.callback()
def start(  # noqa: PLR0913 - one parameter per command-line option
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of labelled studies, or of train/ and val/ folders of them."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("results"),
    name: Annotated[str, typer.Option(help="Name of this run, a folder inside --out.")] = "run",
    recipe: Annotated[str, typer.Option(help="What to train.")] = "small-segmamba",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SETTING=VALUE", help="Change one setting of the recipe (JSON value)."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    max_minutes: Annotated[
        float | None, typer.Option(help="Time budget; the learning rate decays to fit it.")
    ] = None,
    val: Annotated[
        str, typer.Option(help="Validation cases: names or unique endings, comma-separated.")
    ] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run NAME.")] = False,
    export: Annotated[
        Path | None, typer.Option(help="Where the bundle goes at the end (default: in the run).")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of prepared cases, shared by runs.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Arithmetic of the convolutions: float32, bfloat16, or auto, which takes what is "
            "fast here (default: the recipe's)."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="CPU threads for the network (default: the processors that this process may use)."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes that prepare patches; 0: none (little shared memory).")
    ] = 1,
) -> None:
    """Train a network on a folder of labelled studies."""
    if context.invoked_subcommand is not None:
        return
    if data is None:
        raise OptionError("data", expected="a folder", got="none", way_out="Give --data FOLDER.")
    # torch is imported only when something is trained: --help stays quick
    from model_core.allocator import keep_freed_memory
    from model_core.cpu import limit_threads
    from training import run as runs
    from training.recipes import recipe as recipe_named
    from training.trainer import RunOptions

    keep_freed_memory()
    limit_threads(threads)
    settings = _settings(set_ or [], steps=steps, max_minutes=max_minutes, precision=precision)
    request = runs.RunRequest(
        data=data,
        results=out,
        name=name,
        validation=tuple(case.strip() for case in val.split(",") if case.strip()),
        cache=cache,
        export=export,
        options=RunOptions(device=_device(device), workers=workers),
    )
    console = Console(highlight=False, soft_wrap=True)
    if resume:
        runs.resume(settings, request, console)
    else:
        runs.run(recipe_named(recipe).with_settings(settings), request, console)


@train.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    to: Annotated[Path, typer.Option("--to", help="Folder of the new bundle.")],
    name: Annotated[
        str | None, typer.Option(help="The bundle's name (default: the folder's).")
    ] = None,
    version: Annotated[str, typer.Option(help="The bundle's version.")] = "1",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SETTING=VALUE",
            help="Let the card say another window, overlap or "
            "postprocess than the run (JSON value).",
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store the weights in half precision: half the size.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="The run's data: judge the bundle on the validation cases first."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to judge it: cpu, cuda or auto.")] = "auto",
) -> None:
    """Write the best weights of a run, finished or not, as a model bundle."""
    from training.export import ExportOptions, export_bundle
    from training.run_folder import RunFolder
    from training.split import restore_split

    folder = RunFolder.existing(run.parent, run.name)
    split = json.loads(folder.split.read_text())
    studies = () if data is None else restore_split(data, split).validation
    options = ExportOptions(
        name=name,
        version=version,
        settings=_settings(set_ or []),
        half=half,
        device=_device(device),
    )
    export_bundle(folder, to, options=options, studies=studies)
    Console(highlight=False, soft_wrap=True).print(f"bundle written: {to}")


def _settings(pairs: list[str], **direct: float | str | None) -> dict[str, Any]:
    """Settings by name: ``--set NAME=VALUE`` pairs, then the options that were given."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise OptionError(
                "set",
                expected="SETTING=VALUE",
                got=repr(pair),
                way_out="For example --set patch=[96,96,96].",
            )
        settings[name] = _value(text)
    return settings | {name: value for name, value in direct.items() if value is not None}


def _value(text: str) -> Any:
    """`text` as JSON, or itself: ``--set precision=bfloat16`` needs no quotes."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def main() -> None:
    """``python -m training.cli``: expected errors are one line, as in ``segmamba train``."""
    try:
        train()
    except SegMambaError as error:
        say_error(str(error))
        sys.exit(2)


if __name__ == "__main__":
    main()
