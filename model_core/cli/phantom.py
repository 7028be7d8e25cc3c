"""``segmamba phantom``: write a generated study with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.table import Table

from model_core.cli import examples, out
from model_core.errors import OptionError
from model_core.types import Shape3

if TYPE_CHECKING:
    from model_core.phantom import Phantom

Size = Literal["full", "small"]
SHAPES: Final[dict[Size, Shape3]] = {"full": (240, 240, 155), "small": (96, 96, 62)}
"""Voxels of 1 mm: the BraTS volume, and the same head at two fifths of its size."""


@examples(
    "segmamba phantom phantom/",
    "segmamba phantom phantom/ --seed 7 --size small --overwrite",
)
def phantom(
    out_dir: Annotated[Path, typer.Argument(file_okay=False, help="Folder for the five files.")],
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Which head and lesion.")] = 0,
    size: Annotated[
        Size, typer.Option(help="full: 240 x 240 x 155 voxels; small: 96 x 96 x 62, for trials.")
    ] = "full",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")
    ] = False,
) -> None:
    """Generate a study: four contrasts of a made-up head with a tumour, and the truth.

    Nobody's data, the same on every machine for one seed: for trying things out and for tests.
    Accuracy on a phantom says nothing about accuracy on patients.
    """
    from model_core.phantom import write_phantom

    if not overwrite and out_dir.is_dir() and any(out_dir.iterdir()):
        raise OptionError(
            "OUT_DIR",
            expected="a new or an empty folder",
            got="a folder with files in it",
            way_out="Choose another one, or add --overwrite.",
        )
    made, paths = write_phantom(out_dir, seed=seed, shape=SHAPES[size])
    _show(made, sorted(path.name for path in paths.values()), out_dir)


def _show(made: Phantom, names: list[str], out_dir: Path) -> None:
    """Print the truth and where it lies."""
    from model_core.labels import LABEL_MEANINGS, LABEL_NAMES

    meanings = {LABEL_NAMES[label]: meaning for label, meaning in LABEL_MEANINGS.items()}
    meanings |= {"WT": "whole tumour", "TC": "tumour core"}
    console = out()
    table = Table(box=None, padding=(0, 2))
    table.add_column("part")
    table.add_column("true mL", justify="right")
    table.add_column("", style="dim")
    for name, millilitres in made.truth_ml.items():
        table.add_row(name, f"{millilitres:.1f}", meanings[name])
    console.print(f"{made.name}: {made.labels.grid.describe()}")
    console.print(table)
    console.print(f"{len(names)} files in {out_dir}: {', '.join(names)}", soft_wrap=True)
