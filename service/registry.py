"""The models of a running service: which are installed, which are in memory.

The default model is loaded and warmed up first and never leaves; others come on first use, by
name only (a path is never accepted over HTTP), and the least recently used one makes room.
Segmenters are loaded and run on the worker's thread alone.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from model_core.errors import OptionError
from model_core.types import CancelCheck, Progress
from service.metrics import ModelInfo
from service.observability import Stopwatch

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


SegmenterFactory = Callable[[str], SegmenterLike]
CardCatalogue = Callable[[], Mapping[str, Mapping[str, Any]]]


class ModelRegistry:
    """Installed and loaded models.

    Args:
        default: name of the model that serves requests which name none.
        capacity: how many models may be in memory, the default one among them.
        factory: makes a segmenter from an installed model's name.
        catalogue: the cards of the installed models by name.
    """

    def __init__(
        self, default: str, *, capacity: int, factory: SegmenterFactory, catalogue: CardCatalogue
    ) -> None:
        self.default = default
        self._others = capacity - 1  # one place is always the default model's
        self._factory = factory
        self._catalogue = catalogue
        self._loaded: OrderedDict[str, SegmenterLike] = OrderedDict()
        self._lock = threading.Lock()

    def cards(self) -> Mapping[str, Mapping[str, Any]]:
        """The cards of all installed models by name."""
        return self._catalogue()

    def loaded(self) -> tuple[str, ...]:
        """Names of the models in memory, least recently used first."""
        with self._lock:
            return tuple(self._loaded)

    def loaded_info(self) -> tuple[ModelInfo, ...]:
        """Version, scan backend, device and precision of every model in memory."""
        with self._lock:
            return tuple(
                ModelInfo(
                    name,
                    segmenter.card.version,
                    segmenter.backend,
                    segmenter.device,
                    segmenter.precision,
                )
                for name, segmenter in self._loaded.items()
            )

    def resolve(self, name: str | None) -> str:
        """The installed model that a request means.

        Raises:
            OptionError: no installed model has this name.
        """
        if name is None or name == self.default:
            return self.default
        installed = sorted(self.cards())
        if name not in installed:
            raise OptionError(
                "model",
                expected=f"one of {', '.join(installed)}",
                got="a name that is not installed",
                way_out="GET /models lists the installed models.",
            )
        return name

    def acquire(self, name: str) -> SegmenterLike:
        """The warm segmenter of an installed model, loaded if need be; worker thread only."""
        with self._lock:
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return self._loaded[name]
        if name != self.default:
            self._make_room()
        watch = Stopwatch()
        segmenter = self._factory(name)
        segmenter.warm_up()
        logger.info(
            "model loaded and warm",
            extra={
                "model": name,
                "backend": segmenter.backend,
                "device": segmenter.device,
                "precision": segmenter.precision,
                "seconds": round(watch.seconds(), 3),
            },
        )
        with self._lock:
            if name == self.default or self._others > 0:
                self._loaded[name] = segmenter
        return segmenter

    def _make_room(self) -> None:
        """Evict before loading, so that memory never holds one model more than allowed."""
        with self._lock:
            guests = [name for name in self._loaded if name != self.default]
            for name in guests[: max(0, len(guests) + 1 - self._others)]:
                del self._loaded[name]
