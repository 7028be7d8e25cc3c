"""One tiny case and one tiny network: a training run of a few steps takes about a second.

The network is a stand-in (two convolutions and a dropout, so that the random state matters): the
laws of the loop hold for any network, and the networks have tests of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from training.config import TrainConfig
from training.data.cases import CachedCase, write_arrays
from training.recipes import small_segmamba

MakeCase = Callable[..., CachedCase]


class TinyNetwork(nn.Module):
    """(B, 4, X, Y, Z) → logits (B, 3, X, Y, Z)."""

    def __init__(self, width: int = 8, in_channels: int = 4, out_channels: int = 3) -> None:
        super().__init__()
        self.body = nn.Conv3d(in_channels, width, 3, padding=1)
        self.dropout = nn.Dropout3d(0.1)
        self.head = nn.Conv3d(width, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.dropout(torch.relu(self.body(x))))
        return logits


@pytest.fixture
def tiny_config(monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """A config whose network is a `TinyNetwork`."""
    monkeypatch.setattr(
        "training.loop.trainer.build_network", lambda name, **args: TinyNetwork(**args)
    )
    return replace(
        small_segmamba(),
        network_args={"width": 8},
        patch=(16, 16, 16),
        batch=1,
        steps=10,
        warmup_steps=2,
        validation_overlap=0.0,
    )


@pytest.fixture
def make_case(tmp_path: Path) -> MakeCase:
    """Builds a case whose contrasts show a tumour of three nested boxes in a noisy brain."""

    def make(
        name: str = "case-1", shape: tuple[int, int, int] = (40, 36, 32), labels: int = 3
    ) -> CachedCase:
        rng = np.random.default_rng(len(name))
        truth = np.zeros(shape, np.uint8)
        truth[10:26, 10:26, 10:26] = 2
        if labels >= 3:
            truth[13:20, 13:20, 13:20] = 3
            truth[15:18, 15:18, 15:18] = 1
        image = rng.normal(0, 0.3, (4, *shape)).astype(np.float32)
        image += np.stack([truth == 1, truth == 3, truth > 0, truth == 2]) * np.float32(2)
        brain = np.zeros(shape, bool)
        brain[2:-2, 2:-2, 2:-2] = True
        image[:, ~brain] = 0
        folder = tmp_path / name
        folder.mkdir()
        write_arrays(folder, image, truth, brain)
        present = (1, 2, 3) if labels >= 3 else (2,)
        return CachedCase(
            name=name, folder=folder, shape=shape, present=present, background=(0.0,) * 4
        )

    return make
