from __future__ import annotations

import pytest
import torch

from model_core.errors import OptionError, ShapeError
from model_core.networks import build_network
from model_core.networks.segmamba_brtm import ConvBlock, MambaBlock


def test_a_side_too_short_for_four_halvings_is_refused_with_the_rule() -> None:
    network = build_network("segmamba-brtm", base_channels=8)
    with pytest.raises(ShapeError, match="every side at least 16 voxels") as caught:
        network(torch.zeros(1, 4, 32, 15, 32))
    assert "(1, 4, 32, 15, 32)" in str(caught.value)


def test_depths_that_make_no_network_are_named() -> None:
    with pytest.raises(OptionError) as caught:
        build_network("segmamba-brtm", depths=[])
    assert caught.value.argument == "depths"


def test_only_the_two_deepest_stages_and_the_bottleneck_scan() -> None:
    network = build_network("segmamba-brtm", base_channels=8, depths=[1, 1, 1, 2, 1])
    kinds = [[type(block) for block in stage.blocks] for stage in network.encoders]
    assert kinds == [[ConvBlock]] * 3 + [[MambaBlock] * 2, [MambaBlock]]
    assert [type(block) for block in network.bottleneck] == [ConvBlock, MambaBlock, ConvBlock]
    assert network.size_multiple == 32


def test_the_last_relu_of_a_block_comes_before_the_sum() -> None:
    block = ConvBlock(3, 3).eval()
    x = torch.randn(1, 3, 4, 4, 4) - 5  # a final ReLU would cut these negative values to zero
    with torch.no_grad():
        out = block(x)
        assert bool((out >= x).all())
        assert bool((out < 0).any())


def test_batch_statistics_are_those_stored_in_eval_mode() -> None:
    network = build_network("segmamba-brtm", base_channels=8).eval()
    pair = torch.randn(2, 4, 16, 16, 16)
    with torch.inference_mode():
        together, alone = network(pair), network(pair[:1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
