"""Jobs for `benchmarks.worker`: long or hungry runs that need a process of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.networks import LENT, OURS, forward_in, in_way, seeded, window_input
from benchmarks.timing import time_once
from model_core.allocator import keep_freed_memory
from model_core.checkpoints import Bundle, ModelCard, load_bundle
from model_core.imaging.study import load_study
from model_core.types import Contrast

Begin = Callable[[], None]


def window(
    *,
    begin: Begin,
    name: str,
    way: str,
    precision: str,
    sides: list[int],
    warmup: int = 0,
    rounds: int = 1,
    output: str | None = None,
) -> dict[str, Any]:
    """One window through a network.

    Args:
        begin: told when the timed work begins.
        name: of `benchmarks.networks.CONFIGS`.
        way: of `benchmarks.networks.WAYS`.
        precision: of the convolutions.
        sides: the window.
        warmup: runs that do not count.
        rounds: runs that count.
        output: where to leave the logits as ``.npy``.
    """
    if way == OURS:
        keep_freed_memory()  # as this project's programs do
    network, scaled = in_way(seeded(name), way)
    forward = forward_in(network, precision)
    x = window_input(name, (sides[0], sides[1], sides[2]))
    result: list[torch.Tensor] = []
    seconds = []
    begin()
    for turn in range(warmup + rounds):
        if scaled is not None:
            scaled.unmeasured = 0.0
        result.clear()
        took = time_once(lambda: result.append(forward(x)))
        if turn >= warmup:
            seconds.append(took + (scaled.unmeasured if scaled is not None else 0.0))
    if output is not None:
        np.save(output, result[0].numpy())
    return {"seconds": seconds, "scaled": scaled is not None}


def case(  # noqa: PLR0913 - a request, by name
    *,
    begin: Begin,
    bundle: str,
    way: str,
    lent: bool,
    precision: str,
    images: dict[Contrast, str],
    output: str,
    whole: bool = False,
    rounds: int = 1,
) -> dict[str, Any]:
    """One study from its files to a label map file; the network is loaded before.

    Args:
        begin: told when the timed work begins.
        bundle: a bundle's folder or name.
        way: ``"project"``, ``"nnunet"`` or ``"monai"``.
        lent: for the peers, whether this project's network runs in them (native kernels), or the
            authors' with the blocked PyTorch scan.
        precision: of the project's convolutions.
        images: a path per contrast.
        output: the label map to write.
        whole: for the project, whether one window covers the whole brain.
        rounds: runs that count.
    """
    if way == "project":
        keep_freed_memory()  # as this project's programs do
    loaded = load_bundle(bundle)
    network: nn.Module = loaded.network
    if way != "project" and not lent:
        network = in_way(network, LENT)[0]
    windows: list[int] = []
    network.register_forward_pre_hook(lambda *_: windows.append(1))
    files = {contrast: Path(path) for contrast, path in images.items()}
    if way == "project":
        run = _project(loaded, precision, files, Path(output), whole)
    else:
        run = _peer(way, network, loaded.card, files, Path(output))
    begin()
    seconds = [time_once(run) for _ in range(rounds)]
    return {"seconds": seconds, "windows": len(windows) // rounds}


def _project(
    bundle: Bundle, precision: str, files: Mapping[Contrast, Path], output: Path, whole: bool
) -> Callable[[], object]:
    from model_core.inference.segmenter import Segmenter, SegmentOptions

    segmenter = Segmenter(bundle, precision=precision)
    window: dict[str, Any] = {"window": "whole"} if whole else {}
    options = SegmentOptions(postprocess=False, tta="none", **window)

    def run() -> None:
        output.write_bytes(segmenter.segment(load_study(files), options).encode())

    return run


def _peer(
    way: str, network: nn.Module, card: ModelCard, files: Mapping[Contrast, Path], output: Path
) -> Callable[[], object]:
    images = [files[contrast] for contrast in card.channels]
    if way == "nnunet":
        from benchmarks import nnunet_way

        made = nnunet_way.predictor(network, window=card.window, heads=card.heads)
        return partial(nnunet_way.predict_case, made, images, output)
    from benchmarks import monai_way

    return partial(
        monai_way.predict_case,
        network,
        images,
        output,
        window=card.window,
        orientation=card.orientation,
        heads=card.heads,
    )
