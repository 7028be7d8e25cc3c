"""A bundle of a very small SegMamba with random weights, whose label maps hold every label."""

from __future__ import annotations

from pathlib import Path

import torch

from model_core.checkpoints import CardDraft, save_bundle
from model_core.networks import build_network, network_config
from model_core.types import CONTRASTS
from tests.model_core.checkpoints.cards import card_fields


def write_bundle(models: Path, *, seed: int = 3) -> Path:
    """Write the bundle ``tiny`` into a folder of models; another seed, other weights."""
    torch.manual_seed(seed)
    network = build_network(
        "segmamba", in_channels=4, out_channels=4, depths=(1, 1, 1, 1), features=(4, 4, 8, 8),
        hidden=8,
    )  # fmt: skip
    with torch.no_grad():
        network.head.weight.mul_(20)
        network.head.bias.zero_()
    fields = {
        "version": "0.0.1",
        "family": "segmamba",
        "network": network_config(network),
        "channels": list(CONTRASTS),
        "mirror_axes": [0, 1, 2],
    }
    card = CardDraft.model_validate({**card_fields(), **fields})
    save_bundle(models / "tiny", network, card=card)
    return models / "tiny"
