"""The card that the guide tells people to write is accepted as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from model_core.checkpoints import import_upstream, load_bundle
from model_core.networks import build_network
from model_core.networks.upstream_keys import key_map

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "import-weights.md"


def test_the_template_makes_a_bundle_of_official_weights(tmp_path: Path) -> None:
    (template,) = re.findall(r"```json\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "card.json").write_text(template, encoding="utf-8")
    tensors = build_network("segmamba", features=[8, 8, 8, 8], hidden=8).state_dict()
    names = key_map("segmamba", tensors)
    torch.save({theirs: tensors[ours] for theirs, ours in names.items()}, tmp_path / "weights.pt")

    import_upstream(tmp_path / "weights.pt", tmp_path / "card.json", tmp_path / "official")

    bundle = load_bundle(tmp_path / "official")
    assert bundle.card.network["num_slices"] == [64, 32, 16, 8]
    for name, tensor in bundle.network.state_dict().items():
        assert torch.equal(tensor, tensors[name])
