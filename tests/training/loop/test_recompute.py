"""Gradient checkpointing: the same gradients from fewer saved tensors, and nothing left behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from tests.training.loop.small_networks import NETWORKS, images, small_network
from training.loop.forward import run_network
from training.loop.recompute import blocks, recomputed
from training.task import BRATS, Task


def saved_bytes(network: nn.Module, task: Task, *, again: bool) -> int:
    """Bytes that the graph keeps of one forward pass; its gradient stays in the parameters."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        if again:
            with recomputed(network):
                logits = run_network(network, images(task), task)
        else:
            logits = run_network(network, images(task), task)
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    saved = sum(size for pointer, size in kept.items() if pointer not in weights)
    logits.square().mean().backward()
    return saved


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_same_and_fewer_bytes_are_kept(name: str) -> None:
    plain, task = small_network(name)
    light = copy.deepcopy(plain)
    all_kept = saved_bytes(plain, task, again=False)
    few_kept = saved_bytes(light, task, again=True)
    assert few_kept < 0.6 * all_kept
    for (place, ours), theirs in zip(light.named_parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, msg=place)
    for (place, here), there in zip(light.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(here, there), f"{place}: a batch was counted twice"


@pytest.mark.parametrize("name", NETWORKS)
def test_the_blocks_hold_most_of_the_network(name: str) -> None:
    network, _ = small_network(name)
    inside = sum(p.numel() for block in blocks(network) for p in block.parameters())
    assert inside > 0.6 * sum(p.numel() for p in network.parameters())


def test_nothing_of_it_stays_with_the_network() -> None:
    network, _ = small_network("segmamba")
    with recomputed(network):
        pass
    assert not any("forward" in module.__dict__ for module in network.modules())


def test_an_unknown_network_repeats_its_children() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Sequential(nn.Conv3d(4, 8, 3), nn.Tanh(), nn.Conv3d(8, 3, 1)))
    light = copy.deepcopy(network)
    assert saved_bytes(light, BRATS, again=True) < saved_bytes(network, BRATS, again=False)
    for ours, theirs in zip(light.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
