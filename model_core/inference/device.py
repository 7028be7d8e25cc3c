"""Where a network runs: a device that is really there, and a copy for the CPU."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import nn

from model_core.errors import OptionError

_Module = TypeVar("_Module", bound=nn.Module)


def usable_device(name: str) -> torch.device:
    """The device, if PyTorch can really use it here."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # PyTorch asserts for a build without CUDA
        raise OptionError(
            "device",
            expected="a device that PyTorch can use here, e.g. cpu or cuda",
            got=repr(name),
            way_out="Use cpu, or install a PyTorch build and driver for the device.",
        ) from error
    return device


def copied_to_cpu(network: _Module) -> _Module:
    """A copy on the CPU; the network's own device needs no memory for it."""
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach().to("cpu", copy=True), requires_grad=False)
        for weight in network.parameters()
    }
    memo |= {id(buffer): buffer.to("cpu", copy=True) for buffer in network.buffers()}
    return deepcopy(network, memo)
