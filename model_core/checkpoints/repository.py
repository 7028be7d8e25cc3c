"""A bundle put into a folder of models, beside its other versions: whole, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from model_core.catalogue import (
    CARD_FILE,
    WEIGHTS_FILE,
    InstalledBundle,
    find_versions,
    is_version,
)
from model_core.checkpoints.bundle import load_bundle, parse_json, sha256_of
from model_core.checkpoints.card import ModelCard
from model_core.errors import BundleError


def add_bundle(source: str | Path, root: str | Path) -> Path:
    """Copy a bundle to ``root/NAME/VERSION``, the name and version being those of its card.

    The bundle is loaded once and verified before, the copy's checksums after. A copy that is
    killed in its middle leaves a folder whose name begins with a dot, which nobody looks into.

    Returns:
        the new version's folder.

    Raises:
        BundleError: the bundle is not sound, its version cannot name a folder, that version is
            there already, or the name belongs to a folder that is searched earlier.
    """
    bundle = load_bundle(source)
    card, home = bundle.card, Path(root) / bundle.card.name
    if not is_version(card.version):
        raise BundleError(
            f"bundle {card.name}: the version {card.version!r} cannot be put in order among "
            "others. Give the card one such as 1.2.0 and make the bundle again."
        )
    _check_free(home, card)
    home.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=home, prefix=f".{card.version}-"))
    try:
        temporary.chmod(0o755)
        for file in (WEIGHTS_FILE, CARD_FILE):
            shutil.copyfile(bundle.path / file, temporary / file)
            _sync(temporary / file)
        _check_copy(bundle.path, temporary, card)
        _sync(temporary)
        _publish(temporary, home / card.version)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return home / card.version


def _check_free(home: Path, card: ModelCard) -> None:
    for one in find_versions().get(card.name, ()):
        if not _inside(one, home):
            raise BundleError(
                f"bundle {card.name}: another folder of models, which is searched first, has this "
                "name. Add the bundle there, or give its card another name."
            )
        if one.version == card.version:
            raise _is_there(card.name, card.version)
    if (home / card.version).exists():
        raise _is_there(card.name, card.version)


def _inside(one: InstalledBundle, home: Path) -> bool:
    return one.folder.absolute().is_relative_to(home.absolute())


def _check_copy(source: Path, copy: Path, card: ModelCard) -> None:
    same_card = parse_json(copy / CARD_FILE, subject="the copied card") == parse_json(
        source / CARD_FILE, subject="the card"
    )
    if not same_card or sha256_of(copy / WEIGHTS_FILE) != card.weights.sha256:
        raise BundleError(
            f"bundle {card.name}: it was changed while it was copied. Add it again once it rests."
        )


def _publish(finished: Path, folder: Path) -> None:
    try:
        finished.rename(folder)
    except OSError as error:
        if folder.exists():
            raise _is_there(folder.parent.name, folder.name) from error
        raise
    _sync(folder.parent)
    _sync(folder.parent.parent)  # it may have the model's own folder only since now


def _is_there(name: str, version: str) -> BundleError:
    return BundleError(
        f"bundle {name}: version {version} is installed already. A version never changes: give "
        "the new one another version."
    )


def _sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
