"""``segmamba train``: start a training run, continue one, or run every fold in turn.

Also runs as ``python -m training.commands.train``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from model_core.cli import examples, say_error, say_fault
from model_core.errors import OptionError, SegMambaError
from training.commands import train_options as o
from training.commands.settings import (
    EPOCH_STEPS,
    corrections_in,
    parse_settings,
    with_epochs,
)
from training.faults import PASSING

if TYPE_CHECKING:
    from training.request import Fold, RunRequest

RECIPES = {
    "small-segmamba": "SegMamba at a third of its width: what two CPU cores can train",
    "mixed-segmamba": "the same on patches of three sizes, with synthetic studies (--synthesis)",
    "published-segmamba": "SegMamba at its published size by our own rule; a GPU with 24 GB",
    "paper-segmamba": "SegMamba as its authors train it",
    "brtm-segmamba": "BRTM SegMamba (convolutions, then Mamba) as its authors configure it",
    "lightm-unet-3d": "LightM-UNet on volumes, any data set, as released",
    "lightm-unet-2d": "LightM-UNet on slices or pictures, any data set",
}
"""One line each; what they set is in ``training/recipes.py``."""
STOPPED = 75
"""Exit status of a run that was stopped before its end and saved (sysexits.h: EX_TEMPFAIL)."""
FAULT: Final = 74
"""Exit status of a run that met a fault which may pass (sysexits.h: EX_IOERR)."""


@contextmanager
def _another_try() -> Iterator[None]:
    """Let a fault that may pass end the command with a status of its own."""
    try:
        yield
    except PASSING as error:
        if os.environ.get("SEGMAMBA_DEBUG"):
            raise
        say_fault(error)
        raise typer.Exit(FAULT) from error


@examples(
    "segmamba train small-segmamba --data BraTS2021 --name first --max-minutes 90",
    "segmamba train --name first --resume",
    "segmamba train lightm-unet-2d --data Dataset802_Xray --fold all --epochs 100 --name xray",
    "segmamba train small-segmamba --data mine --from segmamba-small --set learning_rate=1e-4",
    "segmamba train brtm-segmamba --data BraTS2021 --device cuda --set batch=1 --name brtm",
    "",
    "Recipes:",
    *(f"  {name:20}{line}" for name, line in RECIPES.items()),
)
@_another_try()
def train(  # noqa: PLR0913 - each parameter is an option of the command
    recipe: o.Recipe = None,
    data: o.Data = None,
    name: o.Name = "run",
    out: o.Out = Path("results"),
    resume: o.Resume = False,
    fold: o.FoldText = None,
    folds: o.Folds = None,
    labels: o.LabelOption = "auto-declared",
    val: o.Validation = "",
    plan: o.PlanFile = None,
    initial: o.Initial = None,
    set_: o.Settings = None,
    steps: o.Steps = None,
    epochs: o.Epochs = None,
    max_minutes: o.MaxMinutes = None,
    synthesis: o.Synthesis = None,
    cache: o.Cache = None,
    export: o.Export = None,
    device: o.Device = "auto",
    devices: o.Devices = 1,
    nodes: o.Nodes = 1,
    precision: o.Precision = None,
    threads: o.Threads = None,
    workers: o.Workers = 1,
) -> None:
    """Train a network on a data set with known labels.

    A recipe is a network and the rule by which it is trained; the recipes are listed at the end.
    Ctrl-C saves and stops; --resume goes on exactly there. At the end the best weights predict the
    validation cases, the scores and a report are written, and BraTS runs become a model bundle.

    Exit codes: 0 at its end, 2 wrong usage or input, 74 a fault that may pass (a full disk, no such
    device now, a loss that is not finite), 75 stopped before its end and saved.
    """
    wish: dict[str, Any] = {"data": data, "synthesis": synthesis, "cache": cache, "export": export}
    wish["labels"] = None if labels == "auto-declared" else labels
    known = _known(out, name, {**wish, "fold": _fold(fold), "folds": folds}, resume=resume)
    _require(recipe, known, out / name, resume=resume)
    settings, _ = corrections_in(
        parse_settings(set_ or [], steps=steps, max_minutes=max_minutes, precision=precision)
    )
    # torch is imported only when something is trained: --help stays quick
    from model_core.allocator import keep_freed_memory
    from model_core.cpu import limit_threads
    from training.data.find import resolve_dataset
    from training.loop.options import RunOptions
    from training.request import RunRequest

    known["data"] = resolve_dataset(known["data"])
    keep_freed_memory()
    limit_threads(threads)
    options = RunOptions(device=_device(device), devices=devices, nodes=nodes, workers=workers)
    request = RunRequest(
        results=out,
        name=name,
        validation=tuple(case.strip() for case in val.split(",") if case.strip()),
        plan=plan,
        initial=initial,
        options=options,
        **known,
    )
    _train(recipe, settings, request, epochs=epochs, resume=resume)


def _train(
    recipe: str | None,
    settings: Mapping[str, Any],
    request: RunRequest,
    *,
    epochs: int | None,
    resume: bool,
) -> None:
    from rich.console import Console

    from training import folds, run
    from training.job import is_stopped
    from training.loop.processes import is_first
    from training.recipes import recipe as recipe_named
    from training.runs.run_folder import RunFolder

    console = Console(highlight=False, soft_wrap=True)
    whole = request.fold == "all"
    if resume:
        kept = _kept_config(recipe, request)
        settings = with_epochs(settings, epochs, epoch_steps=kept.get("epoch_steps", EPOCH_STEPS))
        ran = (folds.resume_folds if whole else run.resume)(settings, request, console)
    else:
        assert recipe is not None, "asked for above"
        chosen = recipe_named(recipe)
        settings = with_epochs(settings, epochs, epoch_steps=chosen.epoch_steps)
        ran = (folds.run_folds if whole else run.run)(chosen, request, console, settings=settings)
    folders = [ran] if isinstance(ran, RunFolder) else ran
    if is_first() and any(is_stopped(folder) for folder in folders):
        raise typer.Exit(STOPPED)


def _require(recipe: str | None, known: Mapping[str, Any], run: Path, *, resume: bool) -> None:
    """Say what is missing, and how a whole command looks."""
    if recipe is None and not resume:
        raise OptionError(
            "RECIPE",
            expected=f"one of {', '.join(RECIPES)}",
            got="none",
            way_out="For example: segmamba train small-segmamba --data FOLDER --name first. "
            "segmamba train --help explains.",
        )
    if resume and not (any(run.glob("config.json")) or any(run.glob("fold_*/config.json"))):
        raise OptionError(
            "name",
            expected=f"the name of a run in {run.parent}",
            got=repr(run.name),
            way_out="Check --out and --name (segmamba runs lists them), or start without --resume.",
        )
    if known.get("data") is None:
        raise OptionError(
            "data",
            expected="the folder of a data set",
            got="none",
            way_out="Give --data FOLDER; segmamba data verify FOLDER checks it.",
        )


def _known(out: Path, name: str, wish: Mapping[str, Any], *, resume: bool) -> dict[str, Any]:
    """What was asked for; a continued run remembers the rest."""
    said = {key: value for key, value in wish.items() if value is not None}
    if not resume:
        return said
    from training.request import remembered

    return {**remembered(out, name), **said}


def _kept_config(recipe: str | None, request: RunRequest) -> dict[str, Any]:
    """The config of the run to continue, or of its first fold; empty if there is none.

    Raises:
        OptionError: another recipe is named than the run has.
    """
    files = [request.root / "config.json", *sorted(request.root.glob("fold_*/config.json"))]
    kept: dict[str, Any] = next((json.loads(f.read_text()) for f in files if f.is_file()), {})
    if kept and recipe not in (None, kept["recipe"]):
        raise OptionError(
            "RECIPE",
            expected=f"{kept['recipe']}, which the run was started with, or none",
            got=str(recipe),
            way_out="Start another recipe under another --name.",
        )
    return kept


def _fold(text: str | None) -> Fold | None:
    if text is None or text == "all":
        return text  # type: ignore[return-value]  # the one text that Fold knows
    if not text.isdecimal():
        raise OptionError(
            "fold",
            expected="a number from 0, or all",
            got=repr(text),
            way_out="For example --fold 0.",
        )
    return int(text)


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def main() -> None:
    """``python -m training.commands.train``: expected errors are one line, as in ``segmamba``."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(train)
    try:
        app()
    except SegMambaError as error:
        say_error(str(error))
        sys.exit(2)


if __name__ == "__main__":
    main()
