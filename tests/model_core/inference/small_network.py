"""A small network that is a real one (it sees directions, and norms a window), and its study."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from model_core.checkpoints import Bundle, ModelCard
from model_core.imaging.study import Study
from model_core.imaging.study import make_study as study_of
from model_core.imaging.volume import Volume
from model_core.inference.segmenter import Segmenter
from model_core.types import CONTRASTS

SHAPE = (30, 24, 18)


def make_network() -> nn.Module:
    """Random weights, the same each time, that answer with all four labels."""
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Conv3d(4, 12, 3, padding=1), nn.InstanceNorm3d(12), nn.ReLU(), nn.Conv3d(12, 4, 1)
    )
    return network.requires_grad_(False)


def make_study() -> Study:
    """Noise with a margin of zeros around it, voxels of 1 mm."""
    arrays = np.random.default_rng(1).integers(1, 1000, size=(4, *SHAPE)).astype(np.float32)
    margin = np.zeros(SHAPE, dtype=bool)
    margin[2:-2, 2:-2, 1:-1] = True
    return study_of(
        {c: Volume(a * margin, np.eye(4)) for c, a in zip(CONTRASTS, arrays, strict=True)}
    )


def make_card(**changes: object) -> ModelCard:
    """The card of `make_network`: windows of 16 voxels."""
    fields = {
        "format_version": 1,
        "name": "small",
        "version": "1",
        "family": "segmamba",
        "network": {"in_channels": 4, "out_channels": 4},
        "channels": CONTRASTS,
        "heads": "labels",
        "outputs": ["background", "NCR", "ED", "ET"],
        "label_scheme": "brats2023",
        "orientation": "RAS",
        "spacing_mm": [1.0, 1.0, 1.0],
        "normalisation": "zscore-nonzero",
        "window": [16, 16, 16],
        "overlap": 0.25,
        "mirror_axes": [0, 1, 2],
        "tta": "none",
        "postprocess": [],
        "training": {"data": "none", "code_version": "none", "recipe": "none"},
        "metrics": {},
        "licence": "MIT",
        "intended_use": "tests",
        "limitations": "not a trained network",
        "citation": "none",
        "weights": {"file": "weights.safetensors", "sha256": "ab" * 32, "parameters": 1},
    }
    return ModelCard.model_validate_json(json.dumps(fields | changes))


def make_segmenter(device: str = "cpu", batch: int = 1, **changes: object) -> Segmenter:
    """Runs `make_network` in float32, with the card's fields that are to be changed."""
    bundle = Bundle(network=make_network(), card=make_card(**changes), path=Path())
    return Segmenter(
        bundle, device=device, backend="torch", precision="float32", window_batch=batch
    )
