"""The models of one worker: which are in memory, and how others come and go.

The default model is loaded and warmed up first and never leaves; others come on first use, and the
least recently used ones make room. Of each name the newest version serves that loads and runs. When
another one is installed, it is loaded and warmed up beside the one that serves, which goes on until
both are exchanged in one step. A job that has begun keeps what it began with.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from model_core.catalogue import Installed, InstalledBundle, Stamp
from model_core.errors import (
    BundleError,
    CheckpointError,
    KernelMemoryError,
    MemoryLimitError,
    OptionError,
)
from model_core.inference.retry import is_out_of_memory
from model_core.types import CancelCheck, Progress
from service.catalogue import Key, installed_models
from service.metrics import ModelInfo
from service.observability import Stopwatch, describe_exception
from service.settings import MEBIBYTE

if TYPE_CHECKING:
    from model_core.imaging.study import Study
    from model_core.inference.segmentation import Segmentation, SegmentOptions

logger = logging.getLogger("service")


class Versioned(Protocol):
    """What the service needs of a segmenter's model card."""

    @property
    def version(self) -> str:
        """The model's version."""


class SegmenterLike(Protocol):
    """What the service needs of `model_core.inference.segmenter.Segmenter`."""

    @property
    def card(self) -> Versioned:
        """The card of the model that runs."""

    @property
    def backend(self) -> str:
        """The scan backend that runs."""

    @property
    def device(self) -> str:
        """Where the network runs."""

    @property
    def precision(self) -> str:
        """The arithmetic of the network's convolutions."""

    def segment(
        self,
        study: Study,
        options: SegmentOptions = ...,
        *,
        progress: Progress | None = None,
        cancelled: CancelCheck | None = None,
    ) -> Segmentation:
        """Segment one study."""

    def warm_up(self) -> object:
        """Run a real forward pass."""


SegmenterFactory = Callable[[InstalledBundle], SegmenterLike]
Swapped = Callable[[Literal["ok", "broken"]], None]

SHORT_SECONDS: Final = 60.0
"""Between two attempts to exchange a version for one that found no memory."""


@dataclass(frozen=True)
class LoadedModel:
    """A version in memory, warm."""

    bundle: InstalledBundle
    segmenter: SegmenterLike


@dataclass
class _Broken:
    """A version that could not be loaded: its files then, and at the last look."""

    failed: Stamp
    seen: Stamp


class ModelRegistry:
    """Loaded models.

    Args:
        default: name of the model that serves requests which name none.
        capacity: how many models may be in memory, the default one among them.
        factory: makes a segmenter from an installed version.
        installed: asked which versions there are.
        budget: bytes that the weights of all models in memory may take; None: any number. While
            two versions are exchanged, the one that leaves does not count.
        swapped: told of each exchange, and of each version that could not be loaded.
    """

    def __init__(
        self,
        default: str,
        *,
        capacity: int,
        factory: SegmenterFactory,
        installed: Callable[[], Installed] = installed_models,
        budget: int | None = None,
        swapped: Swapped = lambda _: None,
    ) -> None:
        self.default = default
        self._others = capacity - 1  # one place is always the default model's
        self._factory, self._installed = factory, installed
        self._budget, self._tell = budget, swapped
        self._loaded: OrderedDict[Key, LoadedModel] = OrderedDict()
        self._serving: dict[str, Key] = {}
        self._broken: dict[Key, _Broken] = {}
        self._postponed: dict[Key, float] = {}  # until when, on the monotonic clock
        self._lock = threading.Lock()  # of the three tables that jobs ask
        self._loading = threading.Lock()  # one loads at a time: two would take the same room

    def loaded(self) -> tuple[str, ...]:
        """Names of the models in memory, least recently used first."""
        with self._lock:
            return tuple(name for name, _, _ in self._loaded)

    def loaded_info(self) -> tuple[ModelInfo, ...]:
        """Version, scan backend, device and precision of every model in memory."""
        with self._lock:
            return tuple(_info(model) for model in self._loaded.values())

    def states(self) -> list[dict[str, str]]:
        """Versions in memory and broken ones, as plain JSON for others to know."""
        with self._lock:
            told = [(key, "ready") for key in self._loaded]
            told += [(key, "broken") for key in self._broken]
        return [
            {"model": name, "version": version, "digest": digest, "state": state}
            for (name, version, digest), state in told
        ]

    def acquire(self, name: str, version: str | None = None) -> LoadedModel:
        """A warm model, loaded if need be.

        Args:
            name: of an installed model.
            version: exactly this one; None: the one that serves, else the newest that loads.

        Raises:
            OptionError: the version is not installed.
            BundleError: it cannot be loaded, or no version of the name can.
            MemoryLimitError: it needs more memory than models may take.
        """
        exact = None if version is None else self._exact(name, version)
        if found := self._in_memory(name, exact):
            return found
        with self._loading:
            if found := self._in_memory(name, exact):
                return found
            return self._load_newest(name) if exact is None else self._load_exact(exact)

    def refresh(self) -> bool:
        """Exchange what serves for the newest that loads; whether anything changed.

        Called from a thread of its own, beside the jobs.
        """
        installed = self._installed()
        self._forget_mended(installed)
        with self._lock:
            names = list(self._serving)
        changed = [self._refresh(name, installed) for name in names]
        return any(changed)

    def _refresh(self, name: str, installed: Installed) -> bool:
        changed = False
        with self._loading:
            serving = self._serving.get(name)
            for bundle in self._good(name, installed):
                if serving is None or bundle.key == serving:
                    break
                if self._postponed.get(bundle.key, 0.0) > time.monotonic():
                    continue
                exchanged = self._exchange(serving, bundle)
                changed = changed or exchanged or bundle.key in self._broken
                if exchanged:
                    break
        return changed

    def _exchange(self, serving: Key, bundle: InstalledBundle) -> bool:
        """Load a version beside the one that serves, and let it serve; whether it could."""
        try:
            model = self._make(bundle, leaving=serving)
        except Exception as error:  # noqa: BLE001 - the other one goes on
            if _no_room(error) and not isinstance(error, MemoryLimitError):
                self._postpone(bundle, error)
            else:
                self._mark_broken(bundle, error)
            return False
        with self._lock:
            del self._loaded[serving]
            self._put(model)
        self._tell("ok")
        return True

    def _load_newest(self, name: str) -> LoadedModel:
        fault: Exception = BundleError(f"no version of {name!r} that can be loaded is installed")
        for bundle in self._good(name, self._installed()):
            try:
                model = self._make(bundle)
            except Exception as error:
                if _no_room(error):
                    raise
                self._mark_broken(bundle, error)
                fault = error
                continue
            with self._lock:
                if name == self.default or self._others > 0:
                    self._put(model)
            return model
        raise fault

    def _load_exact(self, bundle: InstalledBundle) -> LoadedModel:
        if bundle.key in self._broken:
            raise BundleError(f"version {bundle.version} of {bundle.name!r} could not be loaded")
        try:
            model = self._make(bundle)
        except Exception as error:
            if not _no_room(error):
                self._mark_broken(bundle, error)
            raise
        with self._lock:
            if self._others > 0:
                self._loaded[bundle.key] = model
        return model

    def _put(self, model: LoadedModel) -> None:
        """Let a model serve for its name; under the lock."""
        self._loaded[model.bundle.key] = model
        self._serving[model.bundle.name] = model.bundle.key

    def _in_memory(self, name: str, exact: InstalledBundle | None) -> LoadedModel | None:
        with self._lock:
            key = self._serving.get(name) if exact is None else exact.key
            if key is None or key not in self._loaded:
                return None
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def _exact(self, name: str, version: str) -> InstalledBundle:
        for bundle in self._installed().get(name, ()):
            if bundle.version == version and bundle.fault is None:
                return bundle
        raise OptionError(
            "model",
            expected="a version that is installed",
            got=f"{name}@{version}, which is not there any more",
            way_out="Submit the study again with a version that GET /models lists.",
        )

    def _good(self, name: str, installed: Installed) -> Iterator[InstalledBundle]:
        """Versions that nothing speaks against, the newest first."""
        for bundle in installed.get(name, ()):
            if bundle.fault is None and bundle.key not in self._broken:
                yield bundle

    def _make(self, bundle: InstalledBundle, leaving: Key | None = None) -> LoadedModel:
        """A version loaded and warm; not among those in memory yet, unless it was before."""
        if found := self._in_memory(bundle.name, bundle):
            return found
        self._make_room(bundle, leaving)
        watch = Stopwatch()
        segmenter = self._factory(bundle)
        segmenter.warm_up()
        model = LoadedModel(bundle, segmenter)
        logger.info(
            "model loaded and warm",
            extra={**_info(model)._asdict(), "seconds": round(watch.seconds(), 3)},
        )
        return model

    def _make_room(self, bundle: InstalledBundle, leaving: Key | None) -> None:
        """Evict before loading, so that memory never holds more than it may."""
        with self._lock:
            default = self._serving.get(self.default)
            if bundle.name == self.default and default in (None, leaving):
                places, default = self._others, None
            else:
                places = self._others - 1
            guests = [key for key in self._loaded if key not in (default, leaving)]
            room = self._room(bundle, default)
            while guests and (len(guests) > places or self._bytes(*guests) > room):
                name = guests[0][0]
                if self._serving.get(name) == guests[0]:
                    del self._serving[name]
                del self._loaded[guests.pop(0)]

    def _room(self, bundle: InstalledBundle, default: Key | None) -> float:
        """Bytes that guests may take beside a version and the default one."""
        if self._budget is None:
            return float("inf")
        held = 0 if default is None else self._bytes(default)
        if bundle.weights_bytes > self._budget - held:
            raise MemoryLimitError(
                "model",
                expected=f"weights of at most {(self._budget - held) // MEBIBYTE} MiB: what "
                "models may take, without the default one",
                got=f"{bundle.name} {bundle.version} with {bundle.weights_bytes / MEBIBYTE:.1f} "
                "MiB",
                way_out="Take another model, or have SEGMAMBA_MODELS_MEMORY_MB raised.",
            )
        return self._budget - held - bundle.weights_bytes

    def _bytes(self, *keys: Key) -> int:
        return sum(self._loaded[key].bundle.weights_bytes for key in keys)

    def _postpone(self, bundle: InstalledBundle, error: Exception) -> None:
        logger.warning(
            "no memory for a version of a model: it is tried again later",
            extra={
                "model": bundle.name,
                "version": bundle.version,
                "seconds": SHORT_SECONDS,
                **describe_exception(error),
            },
        )
        self._postponed[bundle.key] = time.monotonic() + SHORT_SECONDS

    def _mark_broken(self, bundle: InstalledBundle, error: Exception) -> None:
        reason = {"reason": str(error)} if isinstance(error, CheckpointError) else {}
        logger.error(
            "a version of a model is broken and is not used",
            extra={
                "model": bundle.name,
                "version": bundle.version,
                **reason,
                **describe_exception(error),
            },
        )
        stamp = bundle.stamp()
        with self._lock:
            self._broken[bundle.key] = _Broken(stamp, stamp)
        self._tell("broken")

    def _forget_mended(self, installed: Installed) -> None:
        """Give a version another chance once its files have changed, and change no more."""
        there = {one.key: one.stamp() for versions in installed.values() for one in versions}
        with self._lock:
            for key, broken in list(self._broken.items()):
                now = there.get(key)
                if now is None or broken.failed != now == broken.seen:
                    del self._broken[key]
                else:
                    broken.seen = now


def _no_room(error: Exception) -> bool:
    """What says nothing against a version that a job asks for: there may be room for it later."""
    return isinstance(error, KernelMemoryError | MemoryLimitError) or is_out_of_memory(error)


def _info(model: LoadedModel) -> ModelInfo:
    bundle, segmenter = model.bundle, model.segmenter
    return ModelInfo(
        bundle.name,
        segmenter.card.version,
        segmenter.backend,
        segmenter.device,
        segmenter.precision,
    )
