"""Where a worker's models come from: the installed bundles, by name and never by path."""

from __future__ import annotations

from collections.abc import Callable

from model_core.catalogue import InstalledBundle
from model_core.checkpoints import load_bundle
from model_core.errors import BackendError, BundleError, OptionError
from model_core.inference.segmenter import Segmenter
from service.settings import Settings
from service.worker.registry import SegmenterLike


def bundle_loader(settings: Settings, device: str) -> Callable[[InstalledBundle], SegmenterLike]:
    """A factory of segmenters that run as the settings say: backend, precision, memory."""

    def load(installed: InstalledBundle) -> SegmenterLike:
        before = installed.stamp()
        bundle = load_bundle(installed.folder)
        recorded = installed.card["weights"]["sha256"]
        if installed.stamp() != before or bundle.card.weights.sha256 != recorded:
            raise BundleError(
                f"bundle {installed.name}: it was replaced while it was read. It is looked at anew."
            )
        try:
            return Segmenter(
                bundle,
                device=device,
                backend=settings.backend,
                precision=settings.precision,
                memory_limit_mb=settings.memory_limit_mb,
                window_batch=settings.window_batch,
            )
        except OptionError as error:
            # The operator chose how the network runs, so this is not the caller's fault.
            raise BackendError(str(error)) from error

    return load
