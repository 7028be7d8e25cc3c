"""Exponential moving average of the weights: the network that is validated and exported."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Ema:
    """Average ``e ← d·e + (1-d)·w`` over the steps, with ``d = min(decay, (1+n)/(10+n))``.

    The warm-up of ``d`` (n: updates so far) forgets the random start quickly, so the average is
    usable after a few dozen steps already.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights after one step; buffers that are not floating are copied."""
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        source = network.state_dict()
        for name, average in self.network.state_dict().items():
            if average.is_floating_point():
                average.lerp_(source[name], weight)
            else:
                average.copy_(source[name])
        self.updates += 1

    def state(self) -> dict[str, Tensor | int]:
        """Weights and update count, for a checkpoint."""
        return {**self.network.state_dict(), "updates": self.updates}

    def load(self, state: dict[str, Tensor | int]) -> None:
        """Restore what `state` gave."""
        weights = dict(state)
        self.updates = int(weights.pop("updates"))
        self.network.load_state_dict(weights)
