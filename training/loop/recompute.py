"""Gradient checkpointing from outside: blocks forget their activations and compute them again.

While the context `recomputed` lasts, the network's blocks run through `torch.utils.checkpoint`: a
block keeps its input only, and its forward pass is repeated when the gradient comes by. The network
itself is not changed, and a copy of it (the average) never carries this along.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Final

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from model_core.networks import lightm_unet, segmamba, segmamba_brtm
from model_core.networks.blocks import ResidualConvBlock, UpBlock

BLOCKS: Final = (
    segmamba.GatedSpatialConv,
    segmamba.TriMambaLayer,
    ResidualConvBlock,
    UpBlock,
    segmamba_brtm.ConvBlock,
    segmamba_brtm.MambaBlock,
    lightm_unet.VisionMambaLayer,
    lightm_unet.ResidualMambaPair,
    lightm_unet.ResidualConvBlock,
)
"""Between these the activations are kept. The larger the block, the fewer are kept, and the more
are there at once while one block repeats itself; these are the networks' own layers."""


def blocks(network: nn.Module) -> list[nn.Module]:
    """The outermost known blocks of a network; of an unknown one, its children."""
    found = list(_outermost(network))
    return found or list(network.children())


@contextmanager
def recomputed(network: nn.Module) -> Iterator[None]:
    """Let the forward passes inside keep the blocks' inputs only; gradients stay the same."""
    patched = blocks(network)
    for block in patched:
        block.__dict__["forward"] = partial(_run, block, block.forward)
    try:
        yield
    finally:
        for block in patched:
            del block.__dict__["forward"]


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, BLOCKS):
            yield child
        else:
            yield from _outermost(child)


def _run(block: nn.Module, forward: Any, *inputs: Any) -> Any:
    again = partial(_contexts, block)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=again)


def _contexts(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the first pass, and around its repetition."""
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """A repetition must not count a batch twice in the running statistics of BatchNorm."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    counts = [None if count is None else count.clone() for _, count in before]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, tracked), count in zip(norms, before, counts, strict=True):
            norm.momentum = momentum
            if tracked is not None and count is not None:
                tracked.copy_(count)
