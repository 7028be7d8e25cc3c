"""``segmamba models`` and ``segmamba import``: what can be loaded, and how more is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from model_core.cli import epilog, examples, out, say_warning
from model_core.errors import BundleError, OptionError

if TYPE_CHECKING:
    from model_core.catalogue import InstalledBundle
    from model_core.checkpoints import ModelCard


class _ShowUnlessNamed(TyperGroup):
    """``models NAME`` is short for ``models show NAME``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in where none is named."""
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


models = typer.Typer(
    name="models",
    cls=_ShowUnlessNamed,
    help="Model bundles that can be loaded by name: **show** lists them or shows one card (in "
    "short `segmamba models` and `segmamba models NAME`), **add** puts one into a folder.",
    rich_markup_mode="markdown",
    add_completion=False,
)


@models.command(
    epilog=epilog(
        "segmamba models",
        "segmamba models segmamba-small",
        "SEGMAMBA_MODELS=/models segmamba models --json",
    )
)
def show(
    name: Annotated[
        str | None,
        typer.Argument(help="Show the whole card of this bundle (name, name@version or folder)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as JSON.")] = False,
) -> None:
    """List the model bundles that can be loaded by name, or show one card whole.

    Bundles come with the package or lie in the folders that `SEGMAMBA_MODELS` names (separated
    like `PATH`), in one version or several. One that cannot be used is listed with the reason.
    """
    if name is not None:
        _show_card(_card_of(name), as_json=as_json)
        return
    found = _all_versions()
    if as_json:
        typer.echo(json.dumps(_by_name(found), indent=2))
    else:
        _show_list(found)


@models.command(
    epilog=epilog(
        "segmamba models add runs/2026-11-30/bundle",
        "segmamba models add my-model --to /srv/models",
    )
)
def add(
    bundle: Annotated[str, typer.Argument(help="Folder of the bundle.")],
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder of models to put it into.",
            show_default="the first one that SEGMAMBA_MODELS names",
        ),
    ] = None,
) -> None:
    """Add a version of a model to a folder of models; running services take it up by themselves.

    The bundle is verified and loaded once. Its copy, FOLDER/NAME/VERSION, appears whole or not at
    all, and nothing that is there is changed.
    """
    from model_core.checkpoints import add_bundle

    folder = add_bundle(bundle, to or _first_folder())
    out().print(f"added     {folder}", soft_wrap=True, markup=False)


def _first_folder() -> Path:
    from model_core.catalogue import search_path

    if not (listed := search_path()):
        raise OptionError(
            "to",
            expected="a folder of models",
            got="none, and SEGMAMBA_MODELS names none",
            way_out="Name one: --to FOLDER.",
        )
    return listed[0]


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


class _Listed(NamedTuple):
    """One version in the list."""

    name: str
    version: str
    card: ModelCard | BundleError
    serves: bool


def _all_versions() -> list[_Listed]:
    from model_core.catalogue import find_versions, newest

    return [
        _Listed(name, one.version, _read(one), one is newest(versions))
        for name, versions in find_versions().items()
        for one in versions
    ]


def _read(bundle: InstalledBundle) -> ModelCard | BundleError:
    from model_core.checkpoints import read_card

    try:
        card = read_card(bundle.folder)
    except BundleError as error:
        return error
    if bundle.fault is None:
        return card
    return BundleError(f"bundle {bundle.name}, {bundle.folder.name}: {bundle.fault}.")


def _card_of(name: str) -> ModelCard:
    """The card of a bundle by name or folder, without loading its weights."""
    from model_core.checkpoints import find_bundle, find_bundles, read_card

    folder = find_bundle(name) or Path(name)
    if not folder.is_dir():
        raise BundleError(
            f"no bundle named {name}. Bundles found: {', '.join(find_bundles()) or 'none'}. "
            "SEGMAMBA_MODELS names further folders of bundles."
        )
    return read_card(folder)


def _by_name(found: list[_Listed]) -> dict[str, Any]:
    """Cards by name; those of versions that do not serve by name@version."""
    return {
        one.name if one.serves else f"{one.name}@{one.version}": _plain(one.card) for one in found
    }


def _plain(card: ModelCard | BundleError) -> dict[str, Any]:
    return {"error": str(card)} if isinstance(card, BundleError) else card.model_dump(mode="json")


def _show_list(found: list[_Listed]) -> None:
    from model_core.checkpoints import DEFAULT_MODEL

    console = out()
    if not found:
        console.print("No model bundles were found. Make one: segmamba import --help")
        return
    table = Table(box=None, padding=(0, 2))
    for column in ("model", "version", "family", "parameters", "window", "tta", "licence"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for one in found:
        default = " (default)" if one.name == DEFAULT_MODEL else ""
        shown = f"{one.name}{default}" if one.serves else f"{one.name}@{one.version}"
        table.add_row(shown, *_columns(one.card))
    console.print(table)
    for one in found:
        if isinstance(one.card, BundleError):
            console.print(f"{one.name}: {one.card}", style="red", soft_wrap=True, markup=False)
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
