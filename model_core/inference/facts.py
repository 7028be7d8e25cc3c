"""What is known of a network before it runs: the windows that it takes, and its width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import nn

from model_core.inference.adaptive import Rule

_USUAL_WIDTH: Final = 48
"""SegMamba's features at full resolution where a card leaves them out."""


def rule_of(network: nn.Module) -> Rule:
    """The windows that the network takes; any, if it does not say."""
    return Rule(
        multiple=getattr(network, "size_multiple", 1),
        num_slices=tuple(getattr(network, "num_slices", None) or ()),
    )


def full_width(config: Mapping[str, Any]) -> int:
    """Features at full resolution, under the name that the family gives them."""
    features = config.get("features")
    if isinstance(features, Sequence) and features:
        return int(features[0])
    for name in ("init_filters", "base_channels"):
        if name in config:
            return int(config[name])
    return _USUAL_WIDTH
