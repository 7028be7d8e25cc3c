"""A model bundle: one folder with a readable card and the weights that belong to it.

::

    <name>/
        card.json             `ModelCard`: what it is, how to feed it, what it was measured to do
        weights.safetensors   its tensors by our names; carries the card's checksum

The card holds the checksum of the weights, the weights hold the checksum of the rest of the card,
so neither can be exchanged or edited alone without being noticed. (This guards against accidents
and mix-ups, not against someone who rewrites both.)
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from model_core.catalogue import (
    CARD_FILE,
    SEARCH_PATH_VARIABLE,
    WEIGHTS_FILE,
    find_bundle,
    find_bundles,
)
from model_core.checkpoints.card import FORMAT_VERSION, CardDraft, ModelCard, WeightsRecord
from model_core.checkpoints.upstream import load_upstream
from model_core.checkpoints.weights import build_empty, check_tensors, fill, load_safetensors
from model_core.errors import BundleError, SegMambaError, ShapeError
from model_core.networks import (
    Network,
    check_window,
    network_config,
    network_name,
)

_CARD_CHECKSUM: Final = "card_sha256"


@dataclass(frozen=True)
class Bundle:
    """A network ready to infer, and its card."""

    network: Network
    """In eval mode, float32, without gradients, on the CPU."""
    card: ModelCard
    path: Path


def load_bundle(path_or_name: str | Path) -> Bundle:
    """Load a bundle and verify all of it.

    Args:
        path_or_name: a bundle's folder, or the name of one that `find_bundles` finds, with
            ``@VERSION`` behind it for another than the newest. A plain word is first looked up as
            a name.

    Raises:
        BundleError: naming the part that is missing, altered or unknown, and the way out.
    """
    folder = _locate(path_or_name)
    card = read_card(folder)
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise BundleError(
            f"bundle {folder.name}: {WEIGHTS_FILE} is missing. Copy the whole bundle folder again."
        )
    if sha256_of(weights) != card.weights.sha256:
        raise BundleError(
            f"bundle {folder.name}: {WEIGHTS_FILE} is not the file that card.json describes (its "
            "sha256 differs). Copy the whole bundle folder again from its source."
        )
    _check_card_checksum(folder)
    network = _read_network(folder, card)
    return Bundle(network, card, folder)


def read_card(folder: Path) -> ModelCard:
    """The card of a bundle, complete and consistent; its weights are not looked at.

    Raises:
        BundleError: naming the fields at fault.
    """
    stored = _read_json(folder)
    version = stored.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"bundle {folder.name}: format_version is {version!r}, this release reads "
            f"{FORMAT_VERSION}. Update the program, or make the bundle again with this release."
        )
    try:
        return ModelCard.model_validate(stored)
    except ValidationError as error:
        raise BundleError(
            f"bundle {folder.name}: {CARD_FILE} is not a valid model card: {faults(error)}. "
            "Correct the source card and make the bundle again."
        ) from error


def save_bundle(
    directory: str | Path,
    network: nn.Module,
    card: CardDraft,
    *,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> ModelCard:
    """Write a bundle folder; it appears whole or not at all.

    Args:
        directory: the folder to create.
        network: one that `build_network` makes; any device, any mode; it is not changed.
        card: everything but the weights record, which is computed here. ``family`` and
            ``network`` must describe ``network``.
        dtype: of the stored floating-point tensors. ``torch.float16`` halves the file; they are
            float32 again once loaded.
        overwrite: replace an existing bundle of that name.

    Returns:
        The complete card.

    Raises:
        BundleError: if the card describes another network, or the folder exists.
    """
    directory = Path(directory)
    _check_describes(card, network)
    if directory.exists() and not (overwrite and (directory / CARD_FILE).is_file()):
        raise BundleError(
            f"bundle {directory.name}: the folder exists already. Choose another, or overwrite a "
            "bundle on purpose with overwrite=True."
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-"))
    try:
        temporary.chmod(0o755)
        complete = _write(temporary, network, card=card, dtype=dtype)
        _replace(directory, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return complete


def import_upstream(weights: str | Path, card_path: str | Path, out: str | Path) -> ModelCard:
    """Make a bundle of the authors' weights and a card that the caller wrote.

    Args:
        weights: a file that `load_upstream` takes.
        card_path: JSON with every field of `CardDraft` but ``family`` and ``network``, which the
            weights tell; where it names them all the same, they must agree.
        out: the bundle folder to create.

    Raises:
        CheckpointError: for the weights.
        BundleError: for a card that is incomplete or contradicts the weights.
    """
    network = load_upstream(weights)
    given = parse_json(Path(card_path), subject="the card")
    told = {"family": network_name(network), "network": network_config(network)}
    check_agrees(given, told)
    try:
        card = CardDraft.model_validate(given | told)
    except ValidationError as error:
        raise BundleError(
            f"the card does not fit: {faults(error)}. See docs/how-to/import-weights.md for a "
            "template."
        ) from error
    return save_bundle(out, network, card)


# ------------------------------------------------------------------------------------- reading


def _locate(path_or_name: str | Path) -> Path:
    if isinstance(path_or_name, str) and (found := find_bundle(path_or_name)):
        return found
    folder = Path(path_or_name)
    if folder.is_dir():
        return folder
    known = ", ".join(find_bundles()) or "none"
    raise BundleError(
        f"no bundle named {folder.name}, and no such folder. Bundles found: {known}. Further "
        f"folders of bundles are given by {SEARCH_PATH_VARIABLE}."
    )


def _read_json(folder: Path) -> dict[str, Any]:
    return parse_json(folder / CARD_FILE, subject=f"bundle {folder.name}: {CARD_FILE}")


def parse_json(path: Path, *, subject: str) -> dict[str, Any]:
    """A JSON object; ``subject`` names the file in a `BundleError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(
            f"{subject} is missing or cannot be read ({error.strerror}). A bundle is a folder with "
            f"{CARD_FILE} and {WEIGHTS_FILE}; copy it whole."
        ) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{subject} is not JSON ({error}). Write or copy it again.") from error
    if not isinstance(content, dict):
        raise BundleError(f"{subject} is not a JSON object. Write or copy it again.")
    return content


def _check_card_checksum(folder: Path) -> None:
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            stored = (file.metadata() or {}).get(_CARD_CHECKSUM)
    except SafetensorError as error:
        raise BundleError(f"bundle {folder.name}: {WEIGHTS_FILE} is damaged: {error}") from error
    if stored != _card_sha256(_read_json(folder)):
        raise BundleError(
            f"bundle {folder.name}: {CARD_FILE} was changed after the weights were stored with it "
            "(its checksum differs). Make the bundle again with save_bundle or `segmamba import`, "
            "or copy it again from its source."
        )


def _read_network(folder: Path, card: ModelCard) -> Network:
    try:
        network = build_empty(card.family, card.network)
        tensors = load_safetensors(folder / WEIGHTS_FILE)
        check_tensors(network.state_dict(), tensors)
        fill(network, tensors, dtype=torch.float32)
        _check_describes(card, network)
    except BundleError:
        raise
    except SegMambaError as error:
        raise BundleError(
            f"bundle {folder.name}: the weights are not those of the network that card.json "
            f"describes: {error}. Make the bundle again."
        ) from error
    if _parameters(network) != card.weights.parameters:
        raise BundleError(
            f"bundle {folder.name}: weights.parameters is {card.weights.parameters}, the network "
            f"has {_parameters(network)}. Make the bundle again."
        )
    return network


# ------------------------------------------------------------------------------------- writing


def _write(folder: Path, network: nn.Module, *, card: CardDraft, dtype: torch.dtype) -> ModelCard:
    fields = card.model_dump(mode="json", exclude={"weights"})
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in network.state_dict().items()
    }
    check_tensors(network.state_dict(), tensors)
    weights = folder / WEIGHTS_FILE
    save_file(tensors, weights, metadata={"format": "pt", _CARD_CHECKSUM: _card_sha256(fields)})
    weights.chmod(0o644)  # safetensors makes it readable to its owner alone
    record = WeightsRecord(
        file=WEIGHTS_FILE, sha256=sha256_of(weights), parameters=_parameters(network)
    )
    complete = ModelCard.model_validate(fields | {"weights": record.model_dump()})
    (folder / CARD_FILE).write_text(_readable(complete), encoding="utf-8")
    return complete


def _replace(directory: Path, new: Path) -> None:
    """Give ``new`` the name ``directory``, so that no moment shows half a bundle."""
    if not directory.exists():
        new.rename(directory)
        return
    old = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-"))
    directory.rename(old / directory.name)
    try:
        new.rename(directory)
    except OSError:
        (old / directory.name).rename(directory)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _check_describes(card: CardDraft, network: nn.Module) -> None:
    check_agrees(
        {"family": card.family, "network": card.network},
        {"family": network_name(network), "network": network_config(network)},
    )
    try:
        check_window(network, card.window)
    except ShapeError as error:
        raise BundleError(f"the card's window does not fit its network: {error}.") from error


def check_agrees(given: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Refuse card fields that contradict what the network or its weights tell."""
    for field, value in told.items():
        if field in given and given[field] != value:
            raise BundleError(
                f"the card's {field} is {json.dumps(given[field])}, but the weights are those of "
                f"{json.dumps(value)}. Correct the card (an imported card may leave it out)."
            )


# ------------------------------------------------------------------------------------- details


def faults(error: ValidationError) -> str:
    """What a card's validation found, on one line: field and fault."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'card'}: {fault['msg']}" for fault in error.errors()
    )


def _readable(card: ModelCard) -> str:
    """The card as JSON, one field a line and short lists on theirs."""
    text = json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False)
    innermost_lists = re.compile(r"\[\n[^][{}]*\n *\]")
    return innermost_lists.sub(lambda m: re.sub(r"\n *", " ", m[0]), text) + "\n"


def _card_sha256(fields: Mapping[str, Any]) -> str:
    """Checksum of a card's content, whatever its layout, without the record of the weights."""
    content = {key: value for key, value in fields.items() if key != "weights"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Checksum of a file, as cards hold it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
