"""Networks over a whole prepared image: windows, mirrored passes, the mean of several networks.

The walk itself is `model_core.inference`; here it learns what a task is. Averaging happens in the
logits of each window, over passes and networks alike, which equals the mean of the whole maps. A
2-D network's windows are one slice deep along X, and several slices go at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from model_core.imaging.preprocess import Prepared
from model_core.inference.sliding_window import (
    Predictor,
    Watch,
    sliding_slabs,
    sliding_window,
)
from model_core.inference.tta import Flip, mirror_passes, predict_mirrored
from model_core.inference.windows import WindowPlan
from model_core.precision import at_precision, resolve_precision
from model_core.types import Tta
from training.config import TrainConfig
from training.loop.forward import run_network
from training.task import LabelArray, Task

IDENTITY: tuple[Flip, ...] = ((),)
"""One pass, nothing mirrored."""


def mirror_axes(config: TrainConfig) -> tuple[int, ...]:
    """Spatial axes of a window that the network was trained to see mirrored."""
    if not config.augmentation.flip:
        return ()
    return (0, 1, 2) if config.task.dims == 3 else (1, 2)


def passes_of(config: TrainConfig, tta: Tta) -> tuple[Flip, ...]:
    """The mirrored passes of a mode; one where the network never saw anything mirrored."""
    return mirror_passes(tta, mirror_axes(config))


def window_plan(network: nn.Module, config: TrainConfig, overlap: float) -> WindowPlan:
    """The config's sliding window in sizes that the network takes; slices in batches."""
    flat = config.task.dims == 2
    plan = WindowPlan(
        window=config.sliding_window, overlap=overlap, batch=config.batch if flat else 1
    )
    multiple = int(getattr(network, "size_multiple", 1))
    return plan.rounded_up((1, multiple, multiple) if flat else multiple)


def predictor(
    networks: Sequence[nn.Module],
    config: TrainConfig,
    *,
    passes: Sequence[Flip] = IDENTITY,
    precision: str | None = None,
) -> Predictor:
    """Mean logits (N, K, *window), float32, of the networks over the passes.

    Args:
        networks: of one task and on one device, in evaluation mode.
        config: of any of them.
        passes: as from `passes_of`.
        precision: the config's if None, else a name that `resolve_precision` takes.
    """
    device = next(networks[0].parameters()).device
    name = config.precision if precision is None else precision
    layout = torch.channels_last_3d if config.channels_last else torch.contiguous_format

    def one(network: nn.Module) -> Predictor:
        def run(windows: Tensor) -> Tensor:
            with _arithmetic(device, name):
                return run_network(network, windows, config.task)

        return run

    def predict(windows: Tensor) -> Tensor:
        moved = windows.to(device, memory_format=layout)
        first, *others = (predict_mirrored(one(network), moved, passes) for network in networks)
        if not others:
            return first.float()
        return torch.stack([first.float(), *(scores.float() for scores in others)]).mean(0)

    return predict


def labels_on_grid(
    predict: Predictor, image: Tensor, task: Task, plan: WindowPlan, watch: Watch | None = None
) -> LabelArray:
    """Internal labels (X, Y, Z) of an image (C, X, Y, Z), read while the windows walk.

    The weighted sums are read without dividing them: neither which is highest nor which are above
    0 depends on it.
    """
    x, y, z = image.shape[1:]
    labels = np.empty((x, y, z), np.uint8)

    def finished(rows: slice, sums: Tensor) -> None:
        labels[rows] = task.decode(sums.cpu().numpy())

    with torch.inference_mode():
        sliding_slabs(predict, image, finished, plan=plan, watch=watch or Watch())
    return labels


def native_labels(
    predict: Predictor,
    prepared: Prepared,
    task: Task,
    plan: WindowPlan,
    *,
    device: torch.device,
    watch: Watch | None = None,
) -> LabelArray:
    """Internal labels on the study's own grid; where the spacing differs, scores go back first."""
    image = torch.from_numpy(prepared.image).to(device)
    if not prepared.resampled:
        return prepared.paste(labels_on_grid(predict, image, task, plan, watch))
    watch = watch or Watch()
    with torch.inference_mode():
        scores = sliding_window(predict, image, plan=plan, **vars(watch)).cpu().numpy()
    labels = np.empty(prepared.box_grid.shape, np.uint8)
    for rows, slab in prepared.scores_by_slab(scores):
        labels[rows] = task.decode(slab)
    return prepared.paste(labels)


def _arithmetic(device: torch.device, name: str) -> AbstractContextManager[object]:
    """The context of one forward pass; float16 is for GPUs, a CPU computes such a network wider."""
    if name == "float16" and device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.float16)
    wider = None if name in ("float16", "auto") else name
    return at_precision(device, resolve_precision(device, wider))
