"""Deep supervision: coarser decoder stages are judged too, through heads that only training has.

The networks are left as they are. Hooks catch what their decoder stages give, a 1×1 head turns it
into logits, and the heads live beside the network: its weights, exports and cards stay the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn

from model_core.errors import OptionError
from model_core.networks.lightm_unet import LightMUNet
from model_core.networks.segmamba import SegMamba
from model_core.networks.segmamba_brtm import SegMambaBRTM
from training.loop.forward import run_network
from training.task import Task

EXTRA_STAGES: Final = 2
"""Judged beside the full resolution: 1/2 and 1/4 of it."""


class SupervisedNetwork(nn.Module):
    """A network and the heads of its coarser stages.

    Args:
        network: gives one tensor of logits.
        task: what its channels mean.
        deep: judge the coarser stages as well.

    Raises:
        OptionError: `deep`, and a network without known decoder stages.
    """

    def __init__(self, network: nn.Module, task: Task, *, deep: bool) -> None:
        super().__init__()
        self.network = network
        self.task = task
        widths = decoder_widths(network)[-2 : -2 - EXTRA_STAGES : -1] if deep else ()
        convolution = nn.Conv3d if task.dims == 3 else nn.Conv2d
        self.heads = nn.ModuleList(
            convolution(width, len(task.outputs), kernel_size=1) for width in widths
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, C, X, Y, Z) to logits (B, K, …), the full resolution first."""
        if not self.heads:
            return (run_network(self.network, images, self.task),)
        stages = decoder_stages(self.network)[-2 : -2 - len(self.heads) : -1]
        with _caught(stages) as features:
            logits = run_network(self.network, images, self.task)
        coarser = (head(features[i]).float() for i, head in enumerate(self.heads))
        return (logits, *(x.unsqueeze(2) if self.task.dims == 2 else x for x in coarser))


def scale_weights(count: int) -> tuple[float, ...]:
    """Weights of `count` resolutions: 1, 1/2, 1/4 …, divided by their sum (as nnU-Net)."""
    shares = [0.5**i for i in range(count)]
    return tuple(share / sum(shares) for share in shares)


def decoder_stages(network: nn.Module) -> Sequence[nn.Module]:
    """Modules whose outputs are the decoder's maps, the coarsest first."""
    if isinstance(network, SegMamba):
        return list(network.ups)
    if isinstance(network, SegMambaBRTM):
        return list(network.decoders)
    if isinstance(network, LightMUNet):
        return list(network.decoder)
    raise OptionError(
        "deep_supervision",
        expected="false for a network without known decoder stages",
        got=f"true with {type(network).__name__}",
        way_out="Use segmamba, segmamba-brtm or lightm-unet, or --set deep_supervision=false.",
    )


def decoder_widths(network: nn.Module) -> Sequence[int]:
    """Channels of the maps of `decoder_stages`."""
    stages = decoder_stages(network)
    if isinstance(network, SegMamba):
        return tuple(reversed(network.features))
    finest = network.init_filters if isinstance(network, LightMUNet) else network.base_channels
    assert isinstance(finest, int)
    return tuple(finest * 2**stage for stage in reversed(range(len(stages))))


@contextmanager
def _caught(stages: Sequence[nn.Module]) -> Iterator[dict[int, Tensor]]:
    """What the stages give while the context lasts, by their place in `stages`.

    The hooks are not kept: a copy of the network (its average) would carry them along.
    """
    caught: dict[int, Tensor] = {}

    def keep(place: int) -> object:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            caught[place] = output

        return hook

    handles = [
        stage.register_forward_hook(keep(place))  # type: ignore[arg-type]
        for place, stage in enumerate(stages)
    ]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def coarser_labels(labels: Tensor, shape: torch.Size) -> Tensor:
    """Labels (B, X, Y, Z) on a coarser grid of `shape` (X', Y', Z'), the nearest voxel's."""
    if labels.shape[1:] == shape:
        return labels
    resized = nn.functional.interpolate(
        labels[:, None].float(), size=tuple(shape), mode="nearest-exact"
    )
    return resized[:, 0].to(labels.dtype)
