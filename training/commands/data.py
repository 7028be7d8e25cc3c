"""``segmamba data``: check a data set, describe it, plan for it, prepare it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from model_core.cli import epilog, err, out
from model_core.errors import OptionError
from training.commands.data_tables import show_fingerprint, show_plan, show_verification

if TYPE_CHECKING:
    from training.config import TrainConfig
    from training.data.dataset import Dataset
    from training.data.fingerprint import Fingerprint

Labels = Literal["auto-declared", "brats2021", "brats2023"]

data = typer.Typer(
    name="data",
    help="Look after a data set before training: **verify** finds every broken case, "
    "**fingerprint** describes the images, **plan** derives spacing, patch and batch from them, "
    "**prepare** fills the cache.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)


Data = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        show_default=False,
        help="A folder (BraTS, nnU-Net raw, Medical Segmentation Decathlon), or the number or name "
        "of a data set in $nnUNet_raw: 801, Dataset801_LiverCT.",
    ),
]
LabelOption = Annotated[
    Labels,
    typer.Option(
        "--labels",
        metavar="NAME",
        help="How BraTS label maps number enhancing tumour: brats2021 (as 4) or brats2023 (as 3). "
        "By default the naming of the files says so; values are never guessed from.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Cases at a time; each needs memory for itself."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", show_default=False, help="Write it as JSON."),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default=False,
        help="Whose network is planned for (segmamba train --help lists them). Default: "
        "small-segmamba, for pictures lightm-unet-2d.",
    ),
]


@data.command(
    epilog=epilog(
        "segmamba data verify BraTS2021",
        "segmamba data verify 801 --json report.json --workers 4",
    )
)
def verify(
    dataset: Data,
    labels: LabelOption = "auto-declared",
    json_out: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", show_default=False, help="Write all as JSON."),
    ] = None,
    workers: Workers = 1,
) -> None:
    """Read every case and name each that cannot be used, and why, in one pass.

    Errors: a missing channel or label map, a file that cannot be read, grids that differ, values
    that are not finite, label values that are not declared, an empty image, a case that is there
    twice. Warnings: a label map without foreground, one image under two channels, a description
    that counts wrong.

    Exit code: 0 no errors, 1 errors, 2 no data set.
    """
    from training.bars import counting
    from training.data.find import load_dataset
    from training.data.verify import verify as check

    _require_folder(json_out)
    found = load_dataset(dataset, labels=labels, strict=False)
    with counting(err(), "checking cases") as tell:
        result = check(found, workers=workers, progress=tell)
    if json_out:
        _write(json_out, result.to_json())
    show_verification(result)
    if not result.ok:
        raise typer.Exit(1)


@data.command(
    epilog=epilog(
        "segmamba data fingerprint BraTS2021",
        "segmamba data fingerprint 801 -o fingerprint.json",
    )
)
def fingerprint(
    dataset: Data,
    labels: LabelOption = "auto-declared",
    output: Output = None,
    workers: Workers = 1,
) -> None:
    """Describe a data set: sizes, spacings, intensities and labels. No case is named."""
    from training.data.find import load_dataset

    _require_folder(output)
    found = _fingerprint(load_dataset(dataset, labels=labels), workers)
    if output:
        _write(output, found.to_json())
    show_fingerprint(found)


@data.command(
    epilog=epilog(
        "segmamba data plan 801 --memory 24 -o plan.json",
        "segmamba train published-segmamba --data 801 --plan plan.json",
        "",
        "segmamba data plan Dataset802_Xray --recipe lightm-unet-2d --memory 8 -o plan.json",
    )
)
def plan(
    dataset: Data,
    recipe: Recipe = None,
    memory: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="GB",
            show_default=False,
            help="What training may take. Default: the GPU's memory, else half of this machine's.",
        ),
    ] = None,
    labels: LabelOption = "auto-declared",
    fingerprint: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            show_default=False,
            help="A fingerprint made earlier; else the images are read.",
        ),
    ] = None,
    output: Output = None,
    workers: Workers = 1,
) -> None:
    """Derive spacing, patch, batch and normalisation, each with its reason.

    nnU-Net's rules, for this project's networks: the median spacing, a finer one along thick
    slices; a patch from the median image, cut until the memory suffices for a batch of two. The
    file may be edited before it is handed to segmamba train --plan.
    """
    from training.data.find import load_dataset
    from training.data.fingerprint import read_fingerprint
    from training.data.memory import available_gb
    from training.data.plan import make_plan

    _require_folder(output)
    found = load_dataset(dataset, labels=labels)
    config = _recipe(recipe, found)
    known = read_fingerprint(fingerprint) if fingerprint else _fingerprint(found, workers)
    made = make_plan(
        found,
        known,
        dims=config.task.dims,
        memory_gb=memory or round(available_gb(), 1),
        network=config.network,
        network_args=config.network_args,
    )
    if output:
        _write(output, made.to_json())
    show_plan(made)


@data.command(
    epilog=epilog(
        "segmamba data prepare BraTS2021 --cache prepared --workers 4",
        "segmamba train small-segmamba --data BraTS2021 --cache prepared",
        "",
        "segmamba data prepare 801 --plan plan.json --cache prepared",
    )
)
def prepare(
    dataset: Data,
    recipe: Recipe = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            show_default=False,
            help="A plan made earlier; without one as segmamba train does without one.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            metavar="DIR",
            show_default=False,
            help="Where prepared cases go; give the same folder to segmamba train. Default: "
            "segmamba in the data set's folder in $nnUNet_preprocessed.",
        ),
    ] = None,
    labels: LabelOption = "auto-declared",
    workers: Workers = 1,
) -> None:
    """Turn, crop, resample and normalise every labelled case once, for all runs to come.

    Training does this by itself; do it beforehand with several workers, or where there is no GPU.
    A cache may be shared by runs, folds and recipes: each preprocessing has a folder of its own.
    Stopped half way, it goes on where it was.
    """
    from training.bars import counting
    from training.data.cases import cache_name, prepare_cases
    from training.data.find import load_dataset
    from training.data.plan import apply_plan, read_plan

    found = load_dataset(dataset, labels=labels)
    target = cache or _default_cache(found)
    config = apply_plan(_recipe(recipe, found), found, read_plan(plan) if plan else None)
    with counting(err(), "preparing cases") as tell:
        cases = prepare_cases(found.labelled, found, config, target, progress=tell, workers=workers)
    out().print(
        f"{len(cases)} cases prepared in {target} ({cache_name(config)})",
        soft_wrap=True,
        markup=False,
    )


def _fingerprint(found: Dataset, workers: int) -> Fingerprint:
    from training.bars import counting
    from training.data.fingerprint import make_fingerprint

    with counting(err(), "reading cases") as tell:
        return make_fingerprint(found, workers=workers, progress=tell)


def _recipe(name: str | None, found: Dataset) -> TrainConfig:
    from training.data.fingerprint import are_pictures
    from training.recipes import recipe

    return recipe(name or ("lightm-unet-2d" if are_pictures(found) else "small-segmamba"))


def _default_cache(found: Dataset) -> Path:
    from training.data.find import PREPROCESSED_VARIABLE

    place = os.environ.get(PREPROCESSED_VARIABLE)
    if place:
        return Path(place) / found.name / "segmamba"
    raise OptionError(
        "cache",
        expected=f"a folder, or the environment variable {PREPROCESSED_VARIABLE}",
        got="neither",
        way_out="Say where prepared cases go: --cache DIR.",
    )


def _require_folder(target: Path | None) -> None:
    if target and not target.parent.is_dir():
        raise OptionError(
            "output",
            expected="a file in an existing folder",
            got="a folder that does not exist",
            way_out="Create the folder first.",
        )


def _write(path: Path, values: dict[str, Any]) -> None:
    from model_core.imaging.atomic import write_atomically

    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda short: " ".join(short[0].split()), text)
    write_atomically(path, f"{text}\n".encode())
