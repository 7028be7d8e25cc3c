"""The authors' weights in, our network out."""

from __future__ import annotations

from pathlib import Path

import torch

from model_core.checkpoints.weights import build_empty, check_tensors, fill, read_tensors
from model_core.errors import CheckpointError, OptionError
from model_core.networks import Network
from model_core.networks.upstream_keys import detect, key_map


def load_upstream(path: str | Path, *, dtype: torch.dtype = torch.float32) -> Network:
    """Load weights that the authors' programs wrote; family and sizes are read from the tensors.

    Taken are the official SegMamba (V1), SegMamba-BRTM and LightM-UNet in 2D and 3D; plain,
    ``module.``-prefixed or wrapped files (`model_core.checkpoints.weights.WRAPPERS`); PyTorch's
    format or safetensors. Nothing in the file is executed.

    Args:
        path: the weights file.
        dtype: of the network's tensors, on every machine.

    Returns:
        The network in eval mode on the CPU, without gradients. Its forward takes
        ``(B, C, *spatial)`` in the authors' channel order and returns raw logits
        ``(B, K, *spatial)`` in their class order.

    Raises:
        CheckpointError: for a file that cannot be read, an unknown family, or an unknown, missing
            or misshapen tensor, which the message names as the authors do.
    """
    tensors = read_tensors(Path(path))
    family, config = detect(tensors)
    try:
        network = build_empty(family, config)
    except OptionError as error:
        raise CheckpointError(f"the tensors make no {family} network: {error}") from error
    ours = network.state_dict()
    names = key_map(family, ours)
    check_tensors({theirs: ours[name] for theirs, name in names.items()}, tensors)
    fill(network, {name: tensors[theirs] for theirs, name in names.items()}, dtype=dtype)
    return network
