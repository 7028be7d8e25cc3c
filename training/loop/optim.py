"""The optimiser and its learning rate: warm-up, then cosine or polynomial decay over the progress.

*Progress* runs from 0 to 1 and is whichever is further: steps done of steps planned, or time used
of the time budget. So the rate has always decayed when a run ends, however fast the machine is;
a run that the clock ends is therefore not repeatable step by step on another machine.
"""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from training.config import TrainConfig


def progress(config: TrainConfig, *, step: int, elapsed_seconds: float) -> float:
    """Share of the run that is over, 0 to 1."""
    by_steps = step / config.steps
    by_time = elapsed_seconds / (60 * config.max_minutes) if config.max_minutes else 0.0
    return min(1.0, max(by_steps, by_time))


def learning_rate(config: TrainConfig, *, step: int, elapsed_seconds: float) -> float:
    """Rate of step number `step` (from 0)."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    over = progress(config, step=step, elapsed_seconds=elapsed_seconds)
    return config.learning_rate * warmup * _decayed(config, over)


def _decayed(config: TrainConfig, over: float) -> float:
    """Share of the full rate that is left: from 1 to ``final_lr_fraction``, or to 0 (``poly``)."""
    if config.schedule == "poly":
        return float((1 - over) ** config.poly_power)
    cosine = (1 + math.cos(math.pi * over)) / 2
    floor = config.final_lr_fraction
    return floor + (1 - floor) * cosine


def build_optimiser(network: nn.Module, config: TrainConfig) -> Optimizer:
    """AdamW, Adam or SGD with Nesterov momentum, which decay matrices and kernels only.

    Biases, norm gains and the scan's own vectors and matrices (`A_log`, `D`, `dt_proj.bias`) are
    left alone: pulling them to zero changes the recurrence's time scales, not its complexity.
    With ``decay="all"`` they decay as well, as in the trainers that authors released.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        is_kernel = parameter.ndim >= 2 and not name.endswith("A_log")
        (decayed if is_kernel else kept).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": kept, "weight_decay": config.weight_decay if config.decay == "all" else 0.0},
    ]
    if config.optimiser == "sgd":
        return SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=True)
    return (AdamW if config.optimiser == "adamw" else Adam)(groups, lr=config.learning_rate)
