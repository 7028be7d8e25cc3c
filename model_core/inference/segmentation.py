"""What a segmentation is: a label map, its place in the world, and how it came about.

The report is one schema for every way out: the command line's ``--report``, the JSON answer and
the headers of the HTTP service. It holds no path, no name and nothing from an image's header.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from statistics import fmean
from typing import Any, Final

import numpy as np
import torch

from model_core.errors import OptionError
from model_core.imaging.nifti import encode_label_map
from model_core.imaging.volume import Volume
from model_core.inference.ladder import MemoryStep
from model_core.labels import LABEL_MEANINGS, LABEL_NAMES, LabelArray, scheme_values
from model_core.postprocess import StepReport
from model_core.precision import Precision
from model_core.types import (
    LABEL_SCHEMES,
    TTA_MODES,
    WINDOW_CHOICES,
    LabelScheme,
    Region,
    Tta,
    WindowChoice,
)

SCHEMA_VERSION: Final = 1
"""Raised when a key of the report changes its meaning or goes; new keys do not raise it."""


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """What a caller may choose for one study; None leaves the choice to the model card.

    Attributes:
        tta: test-time augmentation by mirroring.
        label_scheme: the numbering of the label map handed out.
        postprocess: False switches the card's post-processing steps off.
        window: ``card`` (the default) for the window that the model was validated with, ``whole``
            for one window over the brain where the memory allows it.
        allow_fewer_passes: whether a run whose memory is used up may leave the mirrored passes
            out, which gives another result; False (the default): it may not.
        votes: whether it is kept, voxel by voxel, how many mirrored passes disagree with the
            answer; the answer is the same either way.

    Raises:
        OptionError: a value that is not allowed; the message lists those that are.
    """

    tta: Tta | None = None
    label_scheme: LabelScheme | None = None
    postprocess: bool | None = None
    window: WindowChoice | None = None
    allow_fewer_passes: bool | None = None
    votes: bool = False

    def __post_init__(self) -> None:
        _require("tta", self.tta, TTA_MODES)
        _require("label_scheme", self.label_scheme, LABEL_SCHEMES)
        _require("postprocess", self.postprocess, (True, False))
        _require("window", self.window, WINDOW_CHOICES)
        _require("allow_fewer_passes", self.allow_fewer_passes, (True, False))
        _require("votes", self.votes, (True, False))


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """A label map on the grid of the study's reference image, with its account.

    Attributes:
        labels: internal labels (BraTS 2023 numbering), uint8 (X, Y, Z) on the grid of `native`.
        native: the study's reference image as it was given.
        label_scheme: the numbering that `encode` writes.
        volumes_ml: millilitres of NCR, ED, ET, WT and TC.
        stage_seconds: prepare, infer, restore, postprocess; what comes after adds its own.
        window_seconds: one entry per window, all its mirrored passes included.
        model: name of the bundle, with its `model_version` and `weights_sha256`.
        backend: the scan backend that really ran, on `device`.
        precision: the arithmetic of the network's convolutions.
        window_choice: whose window was taken, the card's or one over the whole brain.
        window: its voxels along the axes of the model's orientation.
        tta: mode, number of passes and what was averaged.
        warnings: what a person should know before trusting the result.
        postprocess_report: one entry per step that ran, in order.
        memory_steps: what was done, in order, because memory ran out; usually nothing.
        agreement: mean Dice of two mirrored passes by region; empty where there was one pass.
        disagreement: per cent of the mirrored passes that vote otherwise than `labels`, uint8 on
            their grid; None where it was not asked for, or there was one pass.
    """

    labels: LabelArray
    native: Volume
    label_scheme: LabelScheme
    volumes_ml: Mapping[str, float]
    stage_seconds: Mapping[str, float]
    window_seconds: tuple[float, ...]
    model: str
    model_version: str
    weights_sha256: str
    backend: str
    device: str
    tta: Mapping[str, str | int]
    warnings: tuple[str, ...]
    postprocess_report: tuple[StepReport, ...]
    precision: Precision = "float32"
    window_choice: WindowChoice = "card"
    window: tuple[int, ...] = ()
    memory_steps: tuple[MemoryStep, ...] = ()
    agreement: Mapping[Region, float] = field(default_factory=dict)
    disagreement: LabelArray | None = None

    def encode(self) -> bytes:
        """The label map as ``.nii.gz`` in `label_scheme`; see `encode_label_map`."""
        return encode_label_map(self.labels, like=self.native, scheme=self.label_scheme)

    def report(self) -> dict[str, Any]:
        """The account as plain JSON values; see `SCHEMA_VERSION`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "model_version": self.model_version,
            "weights_sha256": self.weights_sha256,
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "tta": dict(self.tta),
            "agreement": {region: round(value, 4) for region, value in self.agreement.items()},
            "window": {"choice": self.window_choice, "shape": list(self.window)},
            "label_scheme": self.label_scheme,
            "labels": label_table(self.label_scheme),
            "volumes_ml": dict(self.volumes_ml),
            "stage_seconds": dict(self.stage_seconds),
            "windows": _spread(self.window_seconds),
            "postprocess": [step.to_dict() for step in self.postprocess_report],
            "memory_steps": list(self.memory_steps),
            "warnings": list(self.warnings),
            "software": software_versions(),
        }


def label_table(scheme: LabelScheme) -> list[dict[str, str | int]]:
    """Value, name and meaning of every label as `scheme` writes it, background first."""
    values = scheme_values(scheme)
    return [
        {"value": values[name], "name": name, "meaning": LABEL_MEANINGS[label]}
        for label, name in LABEL_NAMES.items()
    ]


def software_versions() -> dict[str, str]:
    """Versions of what computed the result."""
    return {
        "segmamba-service": metadata.version("segmamba-service"),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _spread(seconds: Sequence[float]) -> dict[str, float | int]:
    return {
        "count": len(seconds),
        "mean_seconds": fmean(seconds),
        "min_seconds": min(seconds),
        "max_seconds": max(seconds),
    }


def _require(argument: str, value: object, allowed: Sequence[object]) -> None:
    # ``1 == True``: the type has to agree as well.
    if value is None or any(value == one and type(value) is type(one) for one in allowed):
        return
    raise OptionError(
        argument,
        expected=f"one of {', '.join(str(one) for one in allowed)}",
        got=repr(value),
        way_out="Choose one of these, or leave it out for the model's default.",
    )
