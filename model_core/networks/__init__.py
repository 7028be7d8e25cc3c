"""The networks: SegMamba, SegMamba-BRTM and LightM-UNet, in names of our own.

A network knows tensors and nothing else: no files, no images, no windows. `build_network` makes
one; `model_core.checkpoints` fills it with weights.
"""

from model_core.networks.build import (
    NETWORKS,
    Network,
    NetworkName,
    build_network,
    check_window,
    network_config,
    network_name,
)

__all__ = [
    "NETWORKS",
    "Network",
    "NetworkName",
    "build_network",
    "check_window",
    "network_config",
    "network_name",
]
