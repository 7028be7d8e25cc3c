"""What a step sees: random patches, mostly placed on tumour, as a pure function of the step.

Micro-batch number `i` depends on the cases, the config and `i` only. So a run that is resumed at
step `n` sees exactly the patches that an unbroken run would have seen.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model_core.types import Shape3
from training.augment import Augment
from training.cases import CachedCase
from training.config import TrainConfig

Batch = tuple[Tensor, Tensor]
"""Images (B, C, X, Y, Z) float32 and labels (B, X, Y, Z) uint8."""


class PatchBatches(Dataset[Batch]):
    """Item `i` is the run's `i`-th micro-batch."""

    def __init__(self, cases: Sequence[CachedCase], config: TrainConfig) -> None:
        self.cases = tuple(cases)
        self.config = config
        self.augment = Augment(config.augmentation, config.patch)
        weights = np.array([case.weight for case in cases], dtype=np.float64)
        self._shares = weights / weights.sum()

    def __len__(self) -> int:
        return self.config.steps * self.config.accumulate

    def __getitem__(self, index: int) -> Batch:
        patches = [
            self._patch(np.random.default_rng((self.config.seed, index, place)))
            for place in range(self.config.batch)
        ]
        images, labels = zip(*patches, strict=True)
        return torch.stack(images), torch.stack(labels)

    def _patch(self, rng: np.random.Generator) -> Batch:
        case = self.cases[rng.choice(len(self.cases), p=self._shares)]
        start = patch_start(case, self.config, rng)
        plan = self.augment.draw(rng)
        size, start = self.augment.source_region(plan, start)
        image = crop(case.image(), start, size, fill=case.background)
        labels = crop(case.labels()[None], start, size, fill=(0,))[0]
        return self.augment.apply(
            plan,
            torch.from_numpy(image.astype(np.float32)),
            torch.from_numpy(labels),
            background=case.background,
        )


def patch_start(case: CachedCase, config: TrainConfig, rng: np.random.Generator) -> Shape3:
    """Lower corner of one patch: around a voxel of a random present label, or anywhere.

    The label is drawn first, each as often as the others, so that a case with a drop of enhancing
    tumour shows it as often as its oedema. The voxel lies in the patch's central half, at a random
    place of it: centred patches would teach the network that tumours are in the middle.
    """
    if case.present and rng.random() < config.foreground_share:
        label = case.present[rng.integers(len(case.present))]
        voxels = case.voxels(label)
        voxel = voxels[rng.integers(len(voxels))]
        offsets = [rng.integers(size // 4, size - size // 4) for size in config.patch]
        wanted = [int(v) - int(offset) for v, offset in zip(voxel, offsets, strict=True)]
    else:
        room = [max(0, n - p) for n, p in zip(case.shape, config.patch, strict=True)]
        wanted = [int(rng.integers(extent + 1)) for extent in room]
    x, y, z = (
        _inside(start, n, p) for start, n, p in zip(wanted, case.shape, config.patch, strict=True)
    )
    return x, y, z


def crop(
    array: npt.NDArray[np.generic], start: Shape3, size: Shape3, *, fill: Sequence[float]
) -> npt.NDArray[np.generic]:
    """Copy of (C, *size) from (C, X, Y, Z); outside the array each channel holds its `fill`."""
    out = np.empty((array.shape[0], *size), dtype=array.dtype)
    out[:] = np.asarray(fill, dtype=array.dtype)[:, None, None, None]
    source, target = [slice(None)], [slice(None)]
    for first, length, extent in zip(start, size, array.shape[1:], strict=True):
        low, high = max(0, first), min(extent, first + length)
        source.append(slice(low, max(low, high)))
        target.append(slice(low - first, max(low, high) - first))
    out[tuple(target)] = array[tuple(source)]
    return out


def batches(
    cases: Sequence[CachedCase], config: TrainConfig, *, first_step: int, workers: int
) -> Iterator[list[Batch]]:
    """The micro-batches of each step from `first_step` on, prefetched by `workers` processes."""
    dataset = PatchBatches(cases, config)
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=range(first_step * config.accumulate, len(dataset)),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_quiet_worker,
        # its own: the loader would draw a seed from the generator that dropout draws from
        generator=torch.Generator(),
    )
    stream = iter(loader)
    for _ in range(first_step, config.steps):
        yield [next(stream) for _ in range(config.accumulate)]


def _inside(start: int, extent: int, size: int) -> int:
    """`start` moved so that the patch lies inside, or centred where the box is the smaller."""
    if extent < size:
        return -((size - extent) // 2)
    return min(max(start, 0), extent - size)


def _quiet_worker(_: int) -> None:
    """Leave stopping to the parent, which saves first and then ends its workers.

    A SIGTERM to the whole process group ends the worker without an error: the loader would raise
    one in the middle of the parent's last step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.nice(5)
