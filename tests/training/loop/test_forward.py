"""A 2-D network gets its slices without the slice axis, and the logits get it back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from model_core.errors import ShapeError
from training.loop.forward import memory_layout, run_network
from training.task import BRATS

SLICES = replace(BRATS, dims=2)


def test_a_2d_network_sees_slices() -> None:
    network = nn.Conv2d(4, 3, 3, padding=1)
    images = torch.randn(2, 4, 1, 10, 12, generator=torch.Generator().manual_seed(0))
    logits = run_network(network, images, SLICES)
    assert logits.shape == (2, 3, 1, 10, 12)
    torch.testing.assert_close(logits[:, :, 0], network(images[:, :, 0]))


def test_a_3d_network_sees_volumes() -> None:
    network = nn.Conv3d(4, 3, 1)
    images = torch.randn(1, 4, 3, 4, 5)
    torch.testing.assert_close(run_network(network, images, BRATS), network(images))


def test_a_2d_network_refuses_a_volume() -> None:
    with pytest.raises(ShapeError, match="one slice at a time"):
        run_network(nn.Conv2d(4, 3, 1), torch.zeros(1, 4, 2, 8, 8), SLICES)


def test_weights_take_the_layout_of_their_dimensions() -> None:
    for task, convolution in ((BRATS, nn.Conv3d(4, 8, 3)), (SLICES, nn.Conv2d(4, 8, 3))):
        layout = memory_layout(task, channels_last=True)
        weight = convolution.to(memory_format=layout).weight  # type: ignore[call-overload]
        assert weight.is_contiguous(memory_format=layout)
