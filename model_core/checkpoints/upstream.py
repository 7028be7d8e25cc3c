"""The authors' weights in, our network out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
    return assemble(family, config, tensors, dtype=dtype)


def assemble(
    family: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
) -> Network:
    """The network of a family with these tensors, which bear the authors' names.

    Args:
        family: a name of `model_core.networks.NETWORKS`.
        config: its constructor's arguments.
        tensors: every tensor of it, by the authors' names.
        dtype: of the network's tensors.

    Raises:
        CheckpointError: sizes that make no network, or a tensor that is unknown, missing or
            misshapen.
    """
    try:
        network = build_empty(family, config)
    except OptionError as error:
        raise CheckpointError(f"the tensors make no {family} network: {error}") from error
    ours = network.state_dict()
    names = key_map(family, ours)
    check_tensors({theirs: ours[name] for theirs, name in names.items()}, tensors)
    fill(network, {name: tensors[theirs] for theirs, name in names.items()}, dtype=dtype)
    return network
