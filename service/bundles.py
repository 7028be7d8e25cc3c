"""Where the service's models come from: the installed bundles, by name and never by path."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch

from model_core.checkpoints import DEFAULT_MODEL, find_bundles, load_bundle, read_card
from model_core.errors import BackendError, BundleError, OptionError
from model_core.inference.segmenter import Segmenter
from service.registry import SegmenterFactory, SegmenterLike
from service.settings import Settings

logger = logging.getLogger("service")

_REMEMBERED_CARDS: Final = 64


def default_name(settings: Settings) -> str:
    """The model that answers requests which name none."""
    return settings.model or DEFAULT_MODEL


def check_installed(name: str) -> None:
    """Refuse a default model that is not there.

    Raises:
        OptionError: no bundle of this name is installed.
    """
    installed = find_bundles()
    if name not in installed:
        raise OptionError(
            "model",
            expected=f"an installed bundle ({', '.join(installed) or 'none is installed'})",
            got=f"the name {Path(name).name!r}",
            way_out="Put its folder into one of those that SEGMAMBA_MODELS lists.",
        )


def installed_cards() -> Mapping[str, Mapping[str, Any]]:
    """Cards of the installed bundles by name; an unreadable one is left out, and logged."""
    cards = {}
    for name, folder in find_bundles().items():
        try:
            cards[name] = _card(folder, (folder / "card.json").stat().st_mtime_ns)
        except (BundleError, OSError) as error:
            logger.warning(
                "a bundle has no readable card",
                extra={"model": name, "exception": type(error).__name__},
            )
    return cards


@lru_cache(_REMEMBERED_CARDS)
def _card(folder: Path, _modified: int) -> dict[str, Any]:
    return read_card(folder).model_dump(mode="json")


def bundle_loader(settings: Settings) -> SegmenterFactory:
    """A factory of segmenters that run as the settings say: device, backend, precision, memory."""

    def load(name: str) -> SegmenterLike:
        folder = find_bundles().get(name)
        if folder is None:
            raise BundleError(f"no bundle named {name!r} is installed")
        bundle = load_bundle(folder)
        try:
            return Segmenter(
                bundle,
                device=_device(settings.device),
                backend=settings.backend,
                precision=settings.precision,
                memory_limit_mb=settings.memory_limit_mb,
            )
        except OptionError as error:
            # The operator chose how the network runs, so this is not the caller's fault.
            raise BackendError(str(error)) from error

    return load


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"
