"""A network on a batch: the one place where a 2-D network's missing axis goes and comes back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_core.errors import ShapeError
from training.task import Task


def run_network(network: nn.Module, images: Tensor, task: Task) -> Tensor:
    """Logits (B, K, X, Y, Z) of images (B, C, X, Y, Z).

    A network of a 2-D task sees (B, C, Y, Z): X, the slice axis, is 1.

    Raises:
        ShapeError: a 2-D task and more than one slice.
    """
    logits: Tensor = network(without_slices(images, task))
    return logits.unsqueeze(2) if task.dims == 2 else logits


def without_slices(images: Tensor, task: Task) -> Tensor:
    """Images (B, C, X, Y, Z) as the task's network takes them."""
    if task.dims == 3:
        return images
    if images.shape[2] != 1:
        raise ShapeError(
            f"A 2-D network takes one slice at a time, (B, C, 1, Y, Z), got {tuple(images.shape)}."
        )
    return images.squeeze(2)


def memory_layout(task: Task, *, channels_last: bool) -> torch.memory_format:
    """Layout of the network's weights."""
    if not channels_last:
        return torch.contiguous_format
    return torch.channels_last_3d if task.dims == 3 else torch.channels_last
