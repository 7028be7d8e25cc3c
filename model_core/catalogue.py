"""Which model bundles are installed: names, versions and folders. No weights are opened.

::

    FOLDER/NAME/card.json            one version
    FOLDER/NAME/VERSION/card.json    several; VERSION is the version that the card names

The newest version of a name serves unless ``NAME@VERSION`` is asked for. What begins with a dot is
being written, and is not there yet. Names and versions are looked up among what was found; they
never become part of a path.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from packaging.version import InvalidVersion, Version

CARD_FILE: Final = "card.json"
WEIGHTS_FILE: Final = "weights.safetensors"
DEFAULT_MODEL: Final = "segmamba-small"
SEARCH_PATH_VARIABLE: Final = "SEGMAMBA_MODELS"
PACKAGED_MODELS: Final = Path(__file__).parent / "models"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
_LARGEST_CARD: Final = 4 * 1024 * 1024
_REMEMBERED: Final = 256
_BYTES_PER_PARAMETER: Final = 4  # a loaded network is float32, however its file is stored

Stamp = tuple[tuple[int, int, int], ...]
"""Inode, size and time of change of each file of a bundle: another stamp, other files."""


@dataclass(frozen=True, kw_only=True)
class InstalledBundle:
    """One version of a model, as its folder and its card tell it."""

    name: str
    """The folder's."""
    version: str
    """The card's; the folder's where that cannot be read; empty where neither tells it."""
    folder: Path
    card: Mapping[str, Any]
    """As stored; empty where it cannot be read."""
    fault: str | None = None
    """Why it is not used, in words for a person; None where nothing speaks against it."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the card's content, and so of the weights, whose checksum it holds."""
        return hashlib.sha256(json.dumps(self.card, sort_keys=True).encode()).hexdigest()

    @property
    def key(self) -> tuple[str, str, str]:
        """Name, version and digest: equal keys, equal networks."""
        return self.name, self.version, self.digest

    @property
    def weights_bytes(self) -> int:
        """What its parameters take in memory."""
        return _BYTES_PER_PARAMETER * int(self.card["weights"]["parameters"])

    def stamp(self) -> Stamp:
        """Of its files as they are now; a missing one is left out."""
        found = []
        for name in (CARD_FILE, WEIGHTS_FILE):
            with suppress(OSError):
                found.append(_file_stamp(self.folder / name))
        return tuple(found)


Installed = Mapping[str, tuple[InstalledBundle, ...]]
"""Versions by name, the newest first."""


def find_versions() -> Installed:
    """Every installed version: the packaged bundles, then those on the search path.

    The search path is the environment variable ``SEGMAMBA_MODELS``: folders that hold bundles,
    separated like ``PATH``. The first folder with a name has all of its versions, so no folder on
    the search path can take a packaged model's name, or add to its versions.
    """
    found: dict[str, tuple[InstalledBundle, ...]] = {}
    for root in (PACKAGED_MODELS, *search_path()):
        for folder in _folders(root):
            if folder.name not in found and (versions := _versions_in(folder)):
                found[folder.name] = versions
    return MappingProxyType(found)


def find_bundles() -> Mapping[str, Path]:
    """The folder of each name's newest version, of a faulty one only where there is no other."""
    return MappingProxyType(
        {name: newest(versions).folder for name, versions in find_versions().items()}
    )


def find_bundle(model: str) -> Path | None:
    """The folder of an installed ``NAME`` or ``NAME@VERSION``; None where there is none."""
    name, version = split_model(model)
    versions = find_versions().get(name, ())
    if version is not None:
        versions = tuple(one for one in versions if one.version == version and not one.fault)
    return newest(versions).folder if versions else None


def newest(versions: tuple[InstalledBundle, ...]) -> InstalledBundle:
    """The first without a fault, or else the first."""
    return next((one for one in versions if one.fault is None), versions[0])


def split_model(model: str) -> tuple[str, str | None]:
    """``NAME@VERSION`` in two; None for the version where only a name is given."""
    name, at, version = model.partition("@")
    return name, version if at else None


def search_path() -> tuple[Path, ...]:
    """The folders of bundles that the environment names."""
    listed = os.environ.get(SEARCH_PATH_VARIABLE, "")
    return tuple(Path(part) for part in listed.split(os.pathsep) if part)


def is_version(version: str) -> bool:
    """Whether a version can name a folder, and be compared with others."""
    return _VERSION.fullmatch(version) is not None and _order(version)[0]


def _folders(parent: Path) -> list[Path]:
    """Folders, the hidden ones left out: they are being written."""
    return sorted(path for path in parent.glob("[!.]*") if path.is_dir())


def _versions_in(folder: Path) -> tuple[InstalledBundle, ...]:
    found: dict[str, InstalledBundle] = {}
    for bundle in _bundles_in(folder):
        found.setdefault(bundle.version, bundle)
    return tuple(sorted(found.values(), key=lambda one: _order(one.version), reverse=True))


def _bundles_in(folder: Path) -> Iterator[InstalledBundle]:
    """The folder as a bundle of its own, if it is one, then those in it."""
    for inner in (folder, *_folders(folder)):
        if (inner / CARD_FILE).is_file():
            yield _look_at(inner, folder.name, None if inner == folder else inner.name)


def _look_at(folder: Path, name: str, version: str | None) -> InstalledBundle:
    """A bundle's folder under a name; ``version``: what a version's own folder is called."""
    card, fault = _card_in(folder)
    if not _NAME.fullmatch(name):
        fault = "the folder's name is not of letters, digits, dots, dashes and underscores"
    elif version is not None:
        fault = _fault_of_version(folder, version) or fault
        if fault is None and card["version"] != version:
            fault = f"its card is of version {str(card['version'])[:64]!r}, not of {version!r}"
    told = version if version is not None else str(card.get("version", ""))
    return InstalledBundle(name=name, version=told, folder=folder, card=card, fault=fault)


def _fault_of_version(folder: Path, version: str) -> str | None:
    if not is_version(version):
        return "the folder's name is no version, for example 1.2.0"
    if not folder.resolve().is_relative_to(folder.parent.resolve()):
        return "it is a link that leads outside the model's folder"
    return None


def _card_in(folder: Path) -> tuple[Mapping[str, Any], str | None]:
    file = folder / CARD_FILE
    try:
        return _read_card(file, _file_stamp(file)), None
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        return {}, f"{CARD_FILE} cannot be read, or is not of this release"


@lru_cache(_REMEMBERED)
def _read_card(file: Path, stamp: tuple[int, int, int]) -> Mapping[str, Any]:
    """What this release needs of every card is there; the rest is checked by who loads it."""
    if stamp[1] > _LARGEST_CARD:
        raise ValueError("larger than any card")
    card: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    weights = card["weights"]
    if card["format_version"] != 1 or not weights["sha256"] or int(weights["parameters"]) <= 0:
        raise ValueError("not a card of this release")
    if not isinstance(card["version"], str) or not card["version"]:
        raise ValueError("a card without a version")
    return card


def _file_stamp(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _order(version: str) -> tuple[bool, Version, str]:
    """Sorts versions as their numbers say; what is no version comes before all that are."""
    try:
        return True, Version(version), version
    except InvalidVersion:
        return False, Version("0"), version
