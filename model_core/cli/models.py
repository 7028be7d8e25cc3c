"""``segmamba models`` and ``segmamba import``: what can be loaded, and how more is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from model_core.cli import examples, out, say_warning
from model_core.errors import BundleError, OptionError

if TYPE_CHECKING:
    from model_core.checkpoints import ModelCard


@examples(
    "segmamba models",
    "segmamba models segmamba-small",
    "SEGMAMBA_MODELS=/models segmamba models --json",
)
def models(
    name: Annotated[
        str | None, typer.Argument(help="Show the whole card of this bundle (name or folder).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as JSON.")] = False,
) -> None:
    """List the model bundles that can be loaded by name, or show one card whole.

    Bundles come with the package or lie in the folders that `SEGMAMBA_MODELS` names (separated
    like `PATH`). A bundle that cannot be read is listed with the reason.
    """
    if name is not None:
        _show_card(_card_of(name), as_json=as_json)
        return
    cards = _all_cards()
    if as_json:
        typer.echo(json.dumps({name: _plain(card) for name, card in cards.items()}, indent=2))
    else:
        _show_list(cards)


@examples(
    "segmamba import segmamba.pth --card card.json",
    "segmamba import segmamba.pth --card card.json -o models/my-model",
    "segmamba import nnUNet_results/Dataset137_BraTS2021/nnUNetTrainerSegMamba__nnUNetPlans__"
    "3d_fullres -o models/brats",
    "segmamba segment CASE -o seg.nii.gz --model models/my-model",
)
def import_weights(
    weights: Annotated[
        Path,
        typer.Argument(
            exists=True, help="The authors' checkpoint file, or a results folder of nnU-Net."
        ),
    ],
    card: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Model card as JSON: docs/how-to/import-weights.md. Needed for a checkpoint file; "
            "for nnU-Net it may add licence, name and the like.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Bundle folder to create. (default: ./<card's name>)"),
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(help="nnU-Net: the fold to take. (default: all if trained, else 0)"),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="nnU-Net: final or best. (default: final if there is one, else best)"),
    ] = None,
    stored: Annotated[
        str | None,
        typer.Option(
            help="nnU-Net: how the training files are stored, as RAS or LPS. (default: LPS, as "
            "BraTS stores them)"
        ),
    ] = None,
    postprocess: Annotated[
        str,
        typer.Option(
            help="nnU-Net: auto takes the corrections that its cross-validation found, none takes "
            "none; or a postprocessing.json."
        ),
    ] = "auto",
) -> None:
    """Turn trained weights into a model bundle: the authors' files, or a results folder of nnU-Net.

    Of a checkpoint file, the network's family and sizes are read from the tensors; the card tells
    what they cannot: channel order, labels, normalisation, origin, licence. A results folder of
    nnU-Net says nearly all of it itself (docs/how-to/nnunet.md). Nothing in the files is executed.
    """
    if weights.is_dir():
        folder, complete = _import_nnunet(
            weights, output, card, fold=fold, checkpoint=checkpoint, stored=stored,
            postprocess=postprocess,
        )  # fmt: skip
    else:
        folder, complete = _import_file(weights, output, card)
    console = out()
    console.print(
        f"{complete.name} {complete.version}: {complete.family}, "
        f"{complete.weights.parameters:,} parameters"
    )
    console.print(f"bundle    {folder}", soft_wrap=True, markup=False)
    console.print(f"use it    segmamba segment … --model {folder}", soft_wrap=True, markup=False)


def _import_file(weights: Path, output: Path | None, card: Path | None) -> tuple[Path, ModelCard]:
    from model_core.checkpoints import import_upstream

    if card is None:
        raise OptionError(
            "card",
            expected="a model card, since a checkpoint file holds tensors only",
            got="none",
            way_out="Write one (docs/how-to/import-weights.md) and name it: --card card.json.",
        )
    folder = output or Path(_name_in(card))
    return folder, import_upstream(weights, card, folder)


def _import_nnunet(
    weights: Path,
    output: Path | None,
    card: Path | None,
    *,
    fold: str | None,
    checkpoint: str | None,
    stored: str | None,
    postprocess: str,
) -> tuple[Path, ModelCard]:
    from model_core.checkpoints.nnunet import NnunetOptions, import_nnunet

    options = NnunetOptions(
        fold=fold,
        which=_final_or_best(checkpoint),
        stored=stored,
        postprocess=_corrections(postprocess),
        card=card,
    )
    imported = import_nnunet(weights, output, options)
    for warning in imported.warnings:
        say_warning(warning)
    return imported.folder, imported.card


def _final_or_best(checkpoint: str | None) -> Literal["final", "best"] | None:
    match checkpoint:
        case None | "final" | "best":
            return checkpoint
    raise OptionError(
        "checkpoint", expected="final or best", got=repr(checkpoint), way_out="Choose one."
    )


def _corrections(postprocess: str) -> Path | Literal["auto", "none"]:
    match postprocess:
        case "auto" | "none":
            return postprocess
    return Path(postprocess)


def _name_in(card: Path) -> str:
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"the card is not JSON ({error}). Write it again.") from error
    name = content.get("name") if isinstance(content, dict) else None
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise BundleError("the card has no usable name. Give it one, or choose a folder with -o.")
    return name


def _all_cards() -> Mapping[str, ModelCard | BundleError]:
    from model_core.checkpoints import find_bundles, read_card

    cards: dict[str, ModelCard | BundleError] = {}
    for name, folder in find_bundles().items():
        try:
            cards[name] = read_card(folder)
        except BundleError as error:
            cards[name] = error
    return cards


def _card_of(name: str) -> ModelCard:
    """The card of a bundle by name or folder, without loading its weights."""
    from model_core.checkpoints import find_bundles, read_card

    known = find_bundles()
    if name not in known and not Path(name).is_dir():
        raise BundleError(
            f"no bundle named {name}. Bundles found: {', '.join(known) or 'none'}. "
            "SEGMAMBA_MODELS names further folders of bundles."
        )
    return read_card(known.get(name, Path(name)))


def _plain(card: ModelCard | BundleError) -> dict[str, Any]:
    return {"error": str(card)} if isinstance(card, BundleError) else card.model_dump(mode="json")


def _show_list(cards: Mapping[str, ModelCard | BundleError]) -> None:
    from model_core.checkpoints import DEFAULT_MODEL

    console = out()
    if not cards:
        console.print("No model bundles were found. Make one: segmamba import --help")
        return
    table = Table(box=None, padding=(0, 2))
    for column in ("model", "version", "family", "parameters", "window", "tta", "licence"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for name, card in cards.items():
        shown = f"{name} (default)" if name == DEFAULT_MODEL else name
        table.add_row(shown, *_columns(card))
    console.print(table)
    for name, card in cards.items():
        if isinstance(card, BundleError):
            console.print(f"{name}: {card}", style="red", soft_wrap=True, markup=False)
    console.print("The whole card: segmamba models NAME", style="dim")


def _columns(card: ModelCard | BundleError) -> tuple[str, ...]:
    if isinstance(card, BundleError):
        return ("unreadable, see below",)
    return (
        card.version,
        card.family,
        f"{card.weights.parameters:,}",
        "×".join(map(str, card.window)),
        card.tta,
        card.licence,
    )


def _show_card(card: ModelCard, *, as_json: bool) -> None:
    content = card.model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, padding=(0, 2), show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for field, value in content.items():
        table.add_row(field, Text(_readable(value)))
    out().print(table)


def _readable(value: object) -> str:
    """Text as it is, a mapping line by line, anything else as JSON on one line."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        blocks = (f"{key}: {_indented(_readable(inner))}" for key, inner in value.items())
        return "\n".join(blocks)
    return json.dumps(value, ensure_ascii=False)


def _indented(text: str) -> str:
    """The lines of a nested mapping under their key."""
    return text if "\n" not in text else "\n  " + text.replace("\n", "\n  ")
