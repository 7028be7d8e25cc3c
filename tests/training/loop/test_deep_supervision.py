"""Coarser stages are judged through heads that the network itself never sees."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from model_core.errors import OptionError
from tests.training.loop.small_networks import NETWORKS, images, small_network
from training.loop.deep_supervision import SupervisedNetwork, coarser_labels, scale_weights
from training.loop.forward import run_network
from training.loop.losses import SegmentationLoss, supervised_loss
from training.task import BRATS


def test_weights_halve_and_add_up_to_one() -> None:
    assert scale_weights(3) == pytest.approx((4 / 7, 2 / 7, 1 / 7))
    assert scale_weights(1) == (1.0,)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_full_resolution_is_the_networks_own_and_coarser_ones_follow(name: str) -> None:
    network, task = small_network(name)
    alone = run_network(copy.deepcopy(network), images(task), task)
    outputs = SupervisedNetwork(network, task, deep=True)(images(task))
    assert torch.equal(outputs[0], alone)
    flat = task.dims == 2
    assert [tuple(x.shape[2:]) for x in outputs] == [
        (1 if flat else side, side, side) for side in (32, 16, 8)
    ]
    assert {x.shape[1] for x in outputs} == {len(task.outputs)}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_state_has_no_heads_and_its_stages_learn_from_them(name: str) -> None:
    network, task = small_network(name)
    names = set(network.state_dict())
    supervised = SupervisedNetwork(network, task, deep=True)
    labels = torch.zeros(images(task).shape[:1] + images(task).shape[2:], dtype=torch.uint8)
    labels[..., 8:20, 8:20] = 2
    outputs = supervised(images(task))
    supervised_loss(SegmentationLoss(task), outputs[1:], labels).backward()
    assert set(network.state_dict()) == names
    assert all(head.weight.grad.abs().sum() > 0 for head in supervised.heads)
    stem = next(network.parameters()).grad
    assert stem is not None
    assert stem.abs().sum() > 0


def test_no_hook_stays_behind() -> None:
    network, task = small_network("segmamba")
    SupervisedNetwork(network, task, deep=True)(images(task))
    assert not any(module._forward_hooks for module in network.modules())


def test_without_deep_supervision_there_is_one_output_and_no_head() -> None:
    supervised = SupervisedNetwork(nn.Conv3d(4, 3, 1), BRATS, deep=False)
    assert len(supervised(torch.zeros(1, 4, 4, 4, 4))) == 1
    assert len(supervised.heads) == 0


def test_a_network_without_known_stages_is_refused() -> None:
    with pytest.raises(OptionError, match="deep_supervision"):
        SupervisedNetwork(nn.Conv3d(4, 3, 1), BRATS, deep=True)


def test_labels_on_a_coarser_grid_are_labels() -> None:
    labels = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    labels[:, 4:] = 3
    coarse = coarser_labels(labels, torch.Size((4, 4, 4)))
    assert torch.equal(coarse, labels[:, ::2, ::2, ::2])
    assert coarser_labels(labels, torch.Size((8, 8, 8))) is labels
    odd = coarser_labels(labels, torch.Size((3, 3, 3)))
    assert set(odd.unique().tolist()) == {0, 3}
