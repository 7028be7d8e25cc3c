"""How a network is judged: whole volumes, sliding window, WT/TC/ET Dice per case.

`validate` is the cheap measure on the way (the model's own grid, cached cases); `evaluate_studies`
is the final one: what ``segmamba segment`` gives, judged as ``segmamba evaluate`` judges it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from model_core.imaging.nifti import read_label_map
from model_core.imaging.study import StudyFiles, load_study
from model_core.inference.segmenter import Segmenter
from model_core.inference.sliding_window import sliding_window
from model_core.inference.windows import WindowPlan
from model_core.labels import REGIONS, decode_scores, region_mask
from model_core.metrics import CaseMetrics, dice, evaluate_case
from model_core.precision import at_precision, resolve_precision
from training.cases import CachedCase
from training.config import TrainConfig
from training.naming import shown_names

Scores = Mapping[str, float]
"""Dice per region."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Dice of every case (by its `shown_names`) and region."""

    cases: Mapping[str, Scores]

    @property
    def mean(self) -> Scores:
        """Mean over cases per region."""
        return {
            region: float(np.mean([scores[region] for scores in self.cases.values()]))
            for region in REGIONS
        }

    @property
    def score(self) -> float:
        """Mean over cases and regions: what "best" means."""
        return float(np.mean(list(self.mean.values())))

    def to_json(self) -> dict[str, Any]:
        """Per case, mean and score."""
        return {
            "cases": {name: dict(scores) for name, scores in self.cases.items()},
            "mean": dict(self.mean),
            "score": self.score,
        }


def validate(network: nn.Module, cases: Sequence[CachedCase], config: TrainConfig) -> Validation:
    """Dice on cached cases, on the model's own grid."""
    scores: dict[str, Scores] = {}
    for name, case in zip(shown_names([case.name for case in cases]), cases, strict=True):
        image = case.image().astype(np.float32)
        predicted = predict_labels(network, image, config, overlap=config.validation_overlap)
        truth = np.asarray(case.labels())
        scores[name] = {
            region: dice(region_mask(predicted, region), region_mask(truth, region))
            for region in REGIONS
        }
    return Validation(cases=scores)


def evaluate_studies(segmenter: Segmenter, studies: Sequence[StudyFiles]) -> dict[str, CaseMetrics]:
    """Full metrics of whole studies on their native grids, by the case's `shown_names`."""
    results = {}
    for name, files in zip(shown_names([files.name for files in studies]), studies, strict=True):
        assert files.truth is not None, "cases without truth are refused when they are prepared"
        study = load_study(files.paths)
        truth, _ = read_label_map(files.truth, argument="seg", on=study.native.grid)
        labels = segmenter.segment(study).labels
        results[name] = evaluate_case(labels, truth, study.native.spacing_mm)
    return results


@torch.inference_mode()
def predict_labels(
    network: nn.Module, image: npt.NDArray[np.float32], config: TrainConfig, *, overlap: float
) -> npt.NDArray[np.uint8]:
    """Labels (X, Y, Z), internal numbering, of a prepared image (C, X, Y, Z)."""
    device = next(network.parameters()).device
    plan = WindowPlan(window=config.sliding_window, overlap=overlap, batch=1)
    precision = resolve_precision(device, config.precision)
    layout = torch.channels_last_3d if config.channels_last else torch.contiguous_format

    def predict(windows: torch.Tensor) -> torch.Tensor:
        windows = windows.to(device, memory_format=layout)
        with at_precision(device, precision):
            scores: torch.Tensor = network(windows)
        return scores.float().cpu()

    scores = sliding_window(predict, torch.from_numpy(image), plan=plan)
    return decode_scores(scores.numpy(), config.heads, config.outputs)
