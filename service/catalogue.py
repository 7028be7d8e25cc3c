"""The installed models as the API knows them: their cards, read as JSON; no weights, no torch.

A card is checked in full by the worker that loads the bundle. Which versions it could not load, and
which it has in memory, a worker tells with every sign of life.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from model_core.catalogue import (
    DEFAULT_MODEL,
    Installed,
    InstalledBundle,
    find_versions,
    newest,
    split_model,
)
from model_core.errors import OptionError
from service.settings import Settings

logger = logging.getLogger("service")

Catalogue = Callable[[], Installed]
State = Literal["ready", "available", "broken"]
Key = tuple[str, str, str]
"""Of a version: `InstalledBundle.key`."""
States = Mapping[Key, State]
"""What workers say of versions."""
_TOLD: Final = 1024


@dataclass(frozen=True, kw_only=True)
class WantedModel:
    """What a request asks for, and what that means now."""

    name: str
    version: str | None
    """The newest that is not known to be broken; None where this process sees no bundle."""
    exact: bool
    """The request names the version, and takes no other."""
    digest: str | None
    """Of the version's card."""

    @property
    def asked(self) -> str:
        """As a request writes it, whichever version is the newest."""
        return f"{self.name}@{self.version}" if self.exact else self.name


def default_name(settings: Settings) -> str:
    """The model that answers requests which name none."""
    return settings.model or DEFAULT_MODEL


def check_installed(name: str) -> None:
    """Refuse a default model that is not there.

    Raises:
        OptionError: no bundle of this name is installed.
    """
    installed = installed_models()
    if name not in installed:
        raise OptionError(
            "model",
            expected=f"an installed bundle ({', '.join(installed) or 'none is installed'})",
            got=f"the name {Path(name).name!r}",
            way_out="Put its folder into one of those that SEGMAMBA_MODELS lists.",
        )


def installed_models() -> Installed:
    """Versions of the installed models by name, the newest first; a faulty one is logged once."""
    found = find_versions()
    for versions in found.values():
        for one in versions:
            if one.fault is not None:
                _tell(one.name, one.version, one.fault)
    return {name: every for name, every in found.items() if newest(every).fault is None}


def state_of(bundle: InstalledBundle, states: States) -> State:
    """Whether a version is in memory somewhere, would be loaded when asked for, or cannot be."""
    return "broken" if bundle.fault is not None else states.get(bundle.key, "available")


def serving(versions: Sequence[InstalledBundle], states: States) -> InstalledBundle:
    """The version that a request for the name alone means: the newest that is not broken."""
    good = (one for one in versions if state_of(one, states) != "broken")
    return next(good, newest(tuple(versions)))


def resolve(
    installed: Installed, asked: str | None, default: str, states: States | None = None
) -> WantedModel:
    """The installed model that a request means.

    Args:
        installed: versions by name.
        asked: ``NAME`` or ``NAME@VERSION``; None: the default.
        default: a name.
        states: what workers say.

    Raises:
        OptionError: no installed model has this name and version, or no worker can load it.
    """
    states = states or {}
    name, version = (default, None) if asked is None else split_model(asked)
    if name not in installed:
        if name == default and version is None:  # only the workers see the folders of models
            return WantedModel(name=default, version=None, exact=False, digest=None)
        raise _not_installed("a name", installed)
    if version is None:
        meant = serving(installed[name], states)
    else:
        meant = _exactly(installed, name, version, states)
    return WantedModel(
        name=name, version=meant.version, exact=version is not None, digest=meant.digest
    )


def _exactly(installed: Installed, name: str, version: str, states: States) -> InstalledBundle:
    good = [one for one in installed[name] if one.fault is None]
    meant = next((one for one in good if one.version == version), None)
    if meant is None:
        raise _not_installed("a version", [f"{name}@{one.version}" for one in good])
    if state_of(meant, states) == "broken":
        raise OptionError(
            "model",
            expected="a version that can be loaded",
            got="one that could not",
            way_out="GET /models lists the versions with their states.",
        )
    return meant


def _not_installed(what: str, known: Sequence[str] | Mapping[str, object]) -> OptionError:
    return OptionError(
        "model",
        expected=f"one of {', '.join(sorted(known))}",
        got=f"{what} that is not installed",
        way_out="GET /models lists the installed models.",
    )


@lru_cache(_TOLD)
def _tell(name: str, version: str, fault: str) -> None:
    logger.warning(
        "a bundle is not used", extra={"model": name, "version": version, "fault": fault}
    )
