"""In a process of its own: what a forward pass on a device asks of the host; JSON on stdout.

Once warm, a pass that can be recorded as a graph copies nothing from the host's memory and reads no
number back. The device is `pretend_device`, which sees every operation.
"""

import json
import sys
from typing import Any

import torch

from model_core.networks import build_network
from model_core.ops import use_backend
from tests.model_core.inference.pretend_device import Host

NETWORKS: dict[str, dict[str, Any]] = {
    "segmamba": {"depths": (1,) * 4, "features": (4, 4, 8, 8), "hidden": 8},
    "segmamba-brtm": {"base_channels": 8, "depths": (1,) * 4},
    "lightm-unet": {"init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)},
}


def asked(family: str) -> list[str]:
    torch.manual_seed(0)
    network = build_network(family, **NETWORKS[family]).eval().requires_grad_(False).to("card")
    window = torch.randn(1, 4, 32, 32, 32).to("card")
    with torch.inference_mode(), use_backend("torch"):
        network(window)
        Host.asked = []
        scores = network(window)
    seen = list(Host.asked)
    float(scores.sum())
    assert len(Host.asked) == len(seen) + 1, "the device does not see what is read from it"
    return seen


if __name__ == "__main__":
    torch.set_num_threads(1)
    json.dump(asked(sys.argv[1]), sys.stdout)
