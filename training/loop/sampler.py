"""What a step sees: random patches, mostly placed on tumour, as a pure function of the step.

Micro-batch number `i` depends on the cases, the config and `i` only: which size of patch it has
(``mixed_patches``), and what every place in it shows. So a run that is resumed at step `n` sees
exactly the patches that an unbroken run would have seen, and several processes see what one would.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model_core.types import Shape3
from training.config import TrainConfig
from training.data.cases import CachedCase
from training.loop.augment import Augment
from training.loop.share import Share

_KIND_STREAM = 2**32
"""Where a micro-batch's kind is drawn; no place in a batch has this number."""


class Batch(NamedTuple):
    """One micro-batch, or one process's part of it."""

    images: Tensor
    """(B, C, X, Y, Z) float32."""
    labels: Tensor
    """(B, X, Y, Z) uint8."""
    cases: Tensor
    """(B,) int64: which training case each patch is from."""


class PatchBatches(Dataset[Batch]):
    """Item `i` is the run's `i`-th micro-batch (this process's part of it)."""

    def __init__(
        self, cases: Sequence[CachedCase], config: TrainConfig, share: Share | None = None
    ) -> None:
        self.cases = tuple(cases)
        self.config = config
        self.share = share or Share()
        self.kinds = _kinds(config)
        self._augment = [
            Augment(kind.augmentation, kind.patch, channels=len(kind.task.channels))
            for kind in self.kinds
        ]
        weights = np.array([case.weight for case in cases], dtype=np.float64)
        self._shares = weights / weights.sum()

    def __len__(self) -> int:
        return self.config.steps * self.config.accumulate

    def __getitem__(self, index: int) -> Batch:
        kind = self.kind(index)
        patches = [
            self._patch(kind, np.random.default_rng((self.config.seed, index, place)))
            for place in self.share.places(self.kinds[kind].batch)
        ]
        images, labels, cases = zip(*patches, strict=True)
        return Batch(torch.stack(images), torch.stack(labels), torch.tensor(cases))

    def kind(self, index: int) -> int:
        """Which of `kinds` a micro-batch is: 0 the config's own patch, then ``mixed_patches``."""
        if len(self.kinds) == 1:
            return 0
        mixed = [mix.share for mix in self.config.mixed_patches]
        rng = np.random.default_rng((self.config.seed, index, _KIND_STREAM))
        return int(rng.choice(len(self.kinds), p=[1 - sum(mixed), *mixed]))

    def _patch(self, kind: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, int]:
        number = int(rng.choice(len(self.cases), p=self._shares))
        case, augment = self.cases[number], self._augment[kind]
        start = patch_start(case, self.kinds[kind], rng)
        plan = augment.draw(rng)
        size, start = augment.source_region(plan, start)
        image = crop(case.image(), start, size, fill=case.background)
        labels = crop(case.labels(), start, size, fill=(0,))
        changed = augment.apply(
            plan,
            torch.from_numpy(image.astype(np.float32)),
            torch.from_numpy(labels),
            background=case.background,
        )
        return *changed, number


def _kinds(config: TrainConfig) -> tuple[TrainConfig, ...]:
    """The config once for every size of patch."""
    mixed = (
        dataclasses.replace(config, patch=mix.patch, batch=mix.batch, mixed_patches=())
        for mix in config.mixed_patches
    )
    return (dataclasses.replace(config, mixed_patches=()), *mixed)


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
    array: Any, start: Shape3, size: Shape3, *, fill: Sequence[float]
) -> npt.NDArray[np.generic]:
    """Copy of a box from an array (C, X, Y, Z) or (X, Y, Z); outside it holds `fill`.

    Args:
        array: anything that has a ``shape`` and gives NumPy arrays for slices, in memory or not.
        start: the box's lower corner; it may lie outside.
        size: the box's size.
        fill: one value per channel.
    """
    *channels, x, y, z = array.shape
    source = [slice(0, count) for count in channels]
    target = list(source)
    for first, length, extent in zip(start, size, (x, y, z), strict=True):
        low = min(max(0, first), extent)
        high = max(low, min(extent, first + length))
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
    found = np.asarray(array[tuple(source)])
    out = np.empty((*channels, *size), dtype=found.dtype)
    levels = np.asarray(fill, dtype=found.dtype)
    out[:] = levels[:, None, None, None] if channels else levels[0]
    if found.size:
        out[tuple(target)] = found
    return out


def batches(
    cases: Sequence[CachedCase],
    config: TrainConfig,
    *,
    first_step: int,
    workers: int,
    share: Share | None = None,
) -> Iterator[list[Batch]]:
    """The micro-batches of each step from `first_step` on, prefetched by `workers` processes.

    With a `share`, only the part of one of several processes.
    """
    share = share or Share()
    dataset = PatchBatches(cases, config, share)
    steps = range(first_step, config.steps)
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=(n for step in steps for n in share.micro_batches(step, config.accumulate)),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_quiet_worker if share.processes == 1 else _deaf_worker,
        # its own: the loader would draw a seed from the generator that dropout draws from
        generator=torch.Generator(),
    )
    stream = iter(loader)
    for step in steps:
        yield [next(stream) for _ in share.micro_batches(step, config.accumulate)]


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


def _deaf_worker(_: int) -> None:
    """Serve until the parent ends: several processes must all finish the step they are in."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(5)
