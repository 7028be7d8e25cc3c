"""How a network is judged on the way: whole volumes, sliding window, Dice per case.

`validate` works on the model's own grid, on cached cases. The final judgement is
`training.judge.predict` and `training.judge.score`: native grids, every score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training.config import TrainConfig
from training.data.cases import CachedCase
from training.judge.infer import labels_on_grid, predictor, window_plan
from training.judge.score import dice_by_label, dice_by_region
from training.naming import shown_names
from training.task import LabelArray

Scores = Mapping[str, float]
"""Dice by name."""
Show = Callable[[str, npt.NDArray[np.float32], LabelArray, LabelArray], None]
"""Told of each case: shown name, image (C, X, Y, Z), truth and prediction (X, Y, Z)."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Dice of every case, by its `shown_names`."""

    cases: Mapping[str, Scores]
    """By region; these decide which weights are best."""
    labels: Mapping[str, Scores] = field(default_factory=dict)
    """By label."""

    @property
    def mean(self) -> Scores:
        """Mean over cases per region."""
        return _mean(self.cases)

    @property
    def score(self) -> float:
        """Mean over cases and regions: what "best" means."""
        return float(np.mean(list(self.mean.values())))

    def to_json(self) -> dict[str, Any]:
        """Per case, mean and score; the labels likewise where they were judged."""
        values: dict[str, Any] = {
            "cases": {name: dict(scores) for name, scores in self.cases.items()},
            "mean": dict(self.mean),
            "score": self.score,
        }
        if self.labels:
            values["labels"] = {name: dict(scores) for name, scores in self.labels.items()}
            values["label_mean"] = dict(_mean(self.labels))
        return values


def validate(
    network: nn.Module,
    cases: Sequence[CachedCase],
    config: TrainConfig,
    *,
    show: Show | None = None,
) -> Validation:
    """Dice on cached cases, on the model's own grid.

    Args:
        network: in evaluation mode, on the device where it shall run.
        cases: at least one.
        config: task, window and arithmetic.
        show: told of every case, for pictures.
    """
    regions: dict[str, Scores] = {}
    labels: dict[str, Scores] = {}
    for name, case in zip(shown_names([case.name for case in cases]), cases, strict=True):
        image = np.asarray(case.image()[:]).astype(np.float32)
        truth = np.asarray(case.labels()[:])
        predicted = predict_labels(network, image, config, overlap=config.validation_overlap)
        regions[name] = dice_by_region(predicted, truth, config.task)
        labels[name] = dice_by_label(predicted, truth, config.task)
        if show is not None:
            show(name, image, truth, predicted)
    return Validation(cases=regions, labels=labels)


def predict_labels(
    network: nn.Module, image: npt.NDArray[np.float32], config: TrainConfig, *, overlap: float
) -> LabelArray:
    """Internal labels (X, Y, Z) of a prepared image (C, X, Y, Z)."""
    device = next(network.parameters()).device
    return labels_on_grid(
        predictor([network], config),
        torch.from_numpy(image).to(device),
        config.task,
        window_plan(network, config, overlap),
    )


def _mean(cases: Mapping[str, Scores]) -> dict[str, float]:
    names = next(iter(cases.values()))
    return {name: float(np.mean([scores[name] for scores in cases.values()])) for name in names}
