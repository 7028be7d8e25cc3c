"""One process or many: Lightning Fabric opened for a run, and what the processes agree on.

One device, a CPU or a GPU, is one process. With ``devices`` above 1 Fabric starts this program
again for each further device; ``torchrun`` starts all of them itself, on one host or on many. Only
the first process writes files, so a command asks `is_first` before it makes any.
"""

from __future__ import annotations

import os
import warnings
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch

from model_core.errors import OptionError
from training.config import Arithmetic
from training.faults import NotNowError
from training.loop.options import RunOptions

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Content = TypeVar("Content")

_PATIENCE: Final = timedelta(hours=6)
"""How long the others wait for the first process, which validates and writes on its own."""


def rank() -> int:
    """This process's number, 0 for the first or only one; known before anything is set up."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    node, local = (int(os.environ.get(name, 0)) for name in ("NODE_RANK", "LOCAL_RANK"))
    return node * int(os.environ.get("LOCAL_WORLD_SIZE", 1_000)) + local


def is_first() -> bool:
    """Whether this process makes the folders, the checkpoints and the reports."""
    return rank() == 0


def world_size(options: RunOptions) -> int:
    """How many processes a run with `options` has, on all hosts."""
    devices, nodes = _counts(options)
    return devices * nodes


def open_fabric(options: RunOptions, precision: Arithmetic) -> Fabric:
    """Fabric with all processes running; only ``float16`` makes it change the arithmetic.

    Raises:
        OptionError: Fabric is not installed.
        NotNowError: more devices than there are.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise OptionError(
            "lightning-fabric",
            expected="the packages that training needs",
            got="an installation without them",
            way_out="Install them: pip install 'segmamba-service[train]'.",
        ) from error
    devices, nodes = _counts(options)
    _check_devices(options.device, devices)
    fabric = Fabric(
        accelerator=_kind(options.device),
        strategy=_strategy(devices * nodes),
        devices=_chosen(options.device, devices),
        num_nodes=nodes,
        precision="16-mixed" if precision == "float16" else "32-true",
        plugins=[_environment()],
    )
    fabric.launch()
    if fabric.world_size > 1:
        # kernels of one voxel have two equal layouts, which DDP takes for a difference
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return fabric


def agree(fabric: Fabric, *values: float) -> tuple[float, ...]:
    """The largest of each value over all processes: one clock, and one stop for all."""
    if fabric.world_size == 1:
        return values
    mine = torch.tensor(values, dtype=torch.float64, device=fabric.device)
    largest: torch.Tensor = fabric.all_reduce(mine, reduce_op="max")  # type: ignore[assignment]
    return tuple(float(value) for value in largest)


def total(fabric: Fabric, values: torch.Tensor) -> torch.Tensor:
    """Sum over all processes."""
    if fabric.world_size == 1:
        return values
    summed: torch.Tensor = fabric.all_reduce(values, reduce_op="sum")  # type: ignore[assignment]
    return summed.to(values.device)


def gathered(fabric: Fabric, content: Content) -> list[Content]:
    """What each process has, by rank."""
    if fabric.world_size == 1:
        return [content]
    everyone: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(everyone, content)
    return everyone


def told(fabric: Fabric, content: Content) -> Content:
    """What the first process has, in all processes."""
    return content if fabric.world_size == 1 else fabric.broadcast(content)


def _counts(options: RunOptions) -> tuple[int, int]:
    """Devices per host and hosts."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return options.devices, options.nodes
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return here, int(os.environ["WORLD_SIZE"]) // here


def _check_devices(device: str, devices: int) -> None:
    if _kind(device) != "cuda":
        return
    found = torch.cuda.device_count()
    if found < devices:
        raise NotNowError(
            "devices",
            expected=f"at most {found}, the CUDA devices of this machine",
            got=str(devices),
            way_out="Ask for fewer, or for --device cpu.",
        )


def _strategy(processes: int) -> Any:
    if processes == 1:
        return "auto"
    from lightning_fabric.strategies.ddp import DDPStrategy

    return DDPStrategy(timeout=_PATIENCE)


def _chosen(device: str, devices: int) -> int | list[int]:
    """Fabric's own way to name devices: how many, or which one."""
    _, _, index = device.partition(":")
    return [int(index)] if index and devices == 1 else devices


def _environment() -> Any:
    """Named, so that a scheduler's variables alone never change what was asked for."""
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    launched = "TORCHELASTIC_RUN_ID" in os.environ
    return TorchElasticEnvironment() if launched else LightningEnvironment()


def _kind(device: str) -> str:
    return device.partition(":")[0]
