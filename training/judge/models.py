"""What predicts: the best weights of a run, the folds of one as an ensemble, or a model bundle.

All answer the same question, `Model.predict`: the images of a case in, internal labels on their own
grid out, without corrections. A bundle runs through `Segmenter`, so that its answers are those of
``segmamba segment``; runs walk the same windows by `training.judge.infer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from numpy.typing import NDArray
from torch import nn

from model_core.imaging.preprocess import Prepared
from model_core.imaging.study import make_study
from model_core.imaging.volume import Volume
from model_core.inference.segmenter import Segmenter, SegmentOptions
from model_core.inference.sliding_window import Predictor, Watch, sliding_window
from model_core.inference.tta import mirror_passes
from model_core.inference.windows import WindowPlan
from model_core.postprocess import parse_steps
from model_core.types import CONTRASTS, Tta
from training.config import TrainConfig
from training.judge.infer import native_labels, passes_of, predictor, window_plan
from training.task import LabelArray, Task

if TYPE_CHECKING:
    from training.judge.corrections import Corrections


class Model(Protocol):
    """What `training.judge.predict` asks of a model."""

    @property
    def name(self) -> str:
        """For people; a folder's name."""

    @property
    def task(self) -> Task:
        """Channels that it wants, labels that it gives."""

    @property
    def values(self) -> Mapping[int, int]:
        """File value → internal label of the data that it was trained on."""

    @property
    def fingerprint(self) -> str:
        """Of the weights; equal means equal answers."""

    @property
    def trained_on(self) -> frozenset[str]:
        """Names of the cases that its weights have seen."""

    def passes(self, tta: Tta) -> int:
        """Forward passes that a window costs."""

    def own_corrections(self) -> Corrections | None:
        """Those that were found for it or are part of it."""

    def predict(
        self, volumes: Sequence[Volume], *, tta: Tta = "none", watch: Watch | None = None
    ) -> LabelArray:
        """Internal labels on the volumes' grid.

        Args:
            volumes: one per channel of `task`, in its order, on one grid.
            tta: mirrored passes.
            watch: who is told, who may stop.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """One run, or several folds of one, whose logits are averaged."""

    name: str
    config: TrainConfig
    networks: tuple[nn.Module, ...]
    device: torch.device
    fingerprint: str
    values: Mapping[int, int]
    trained_on: frozenset[str] = frozenset()
    corrections: Path | None = None
    """File that was found for this run or set of folds."""
    precision: str = "auto"

    @property
    def task(self) -> Task:
        """Channels that it wants, labels that it gives."""
        return self.config.task

    def passes(self, tta: Tta) -> int:
        """Forward passes that a window costs, in each network."""
        return len(passes_of(self.config, tta))

    def own_corrections(self) -> Corrections | None:
        """``corrections.json`` in the run's folder, else the config's ``postprocess``."""
        from training.judge.corrections import Corrections, load_corrections
        from training.region_rules import rules_of

        if self.corrections is not None:
            return load_corrections(self.corrections)
        if not self.config.postprocess:
            return None
        steps = parse_steps(self.config.postprocess, rules=rules_of(self.task))
        return Corrections(
            steps=steps, labels=self.task.labels, regions=self.task.regions, dims=self.task.dims
        )

    def predict(
        self, volumes: Sequence[Volume], *, tta: Tta = "none", watch: Watch | None = None
    ) -> LabelArray:
        """See `Model.predict`."""
        from training.data.images import prepare_images

        prepared = prepare_images(volumes, self.config)
        predict, plan = self._walk(tta)
        return native_labels(predict, prepared, self.task, plan, device=self.device, watch=watch)

    def predict_scores(
        self, prepared: Prepared, *, tta: Tta = "none", watch: Watch | None = None
    ) -> NDArray[Any]:
        """Mean logits (K, X, Y, Z), float32, on the prepared image's own grid."""
        predict, plan = self._walk(tta)
        image = torch.from_numpy(prepared.image).to(self.device)
        with torch.inference_mode():
            scores = sliding_window(predict, image, plan=plan, **vars(watch or Watch()))
        return scores.cpu().numpy()

    def _walk(self, tta: Tta) -> tuple[Predictor, WindowPlan]:
        """The networks as one callable, and the windows that it takes."""
        passes = passes_of(self.config, tta)
        predict = predictor(self.networks, self.config, passes=passes, precision=self.precision)
        return predict, window_plan(self.networks[0], self.config, self.config.overlap)


@dataclass(frozen=True, kw_only=True, eq=False)
class BundleModel:
    """A bundle, answering as ``segmamba segment --no-postprocess`` does."""

    segmenter: Segmenter
    task: Task
    values: Mapping[int, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name and version of the card."""
        return f"{self.segmenter.card.name} {self.segmenter.card.version}"

    @property
    def fingerprint(self) -> str:
        """Of the weights file."""
        return f"sha256:{self.segmenter.card.weights.sha256}"

    @property
    def trained_on(self) -> frozenset[str]:
        """Public names of training cases that the card tells."""
        return frozenset(getattr(self.segmenter.card.training, "cases", None) or ())

    def passes(self, tta: Tta) -> int:
        """Forward passes that a window costs."""
        return len(mirror_passes(tta, self.segmenter.card.mirror_axes))

    def own_corrections(self) -> Corrections | None:
        """The card's steps."""
        from training.judge.corrections import Corrections

        steps = self.segmenter.card.postprocess
        return Corrections(steps=steps) if steps else None

    def predict(
        self, volumes: Sequence[Volume], *, tta: Tta = "none", watch: Watch | None = None
    ) -> LabelArray:
        """See `Model.predict`."""
        by_name = dict(zip(self.task.channels, volumes, strict=True))
        study = make_study({contrast: by_name[contrast] for contrast in CONTRASTS})
        options = SegmentOptions(tta=tta, postprocess=False)
        watch = watch or Watch()
        result = self.segmenter.segment(
            study, options, progress=watch.progress, cancelled=watch.cancelled
        )
        return result.labels
