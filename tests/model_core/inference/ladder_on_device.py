"""In a process of its own: run a study on a device with less and less memory; JSON on stdout.

A list of runs; the device of each has a byte less than the run before it took. Or, for ``host``,
voxels that differ where the host does its part.
"""

import json
import sys
from dataclasses import replace
from typing import Any

import torch

from model_core.inference import segmenter as segmenters
from model_core.inference.ladder import Run
from model_core.inference.segmenter import Segmenter, SegmentOptions
from model_core.ops.backends import CUDA_KERNELS
from tests.model_core.inference.pretend_device import Memory
from tests.model_core.inference.small_network import make_segmenter, make_study

SCENARIOS: dict[str, dict[str, Any]] = {
    "batch": {"batch": 4, "options": SegmentOptions(allow_fewer_passes=False)},
    "passes": {"options": SegmentOptions(tta="fast", allow_fewer_passes=True)},
    "whole": {"options": SegmentOptions(window="whole")},
    "resampled": {"options": SegmentOptions(), "spacing_mm": [1.5, 1.5, 1.5]},
}


def descend(
    backend: str, *, options: SegmentOptions, batch: int = 1, **card: object
) -> list[dict[str, Any]]:
    study = make_study()
    segmenter = on_card(backend, batch, **card)
    same = make_segmenter("cpu", **card)
    base = Memory.used()
    runs: list[dict[str, Any]] = []
    Memory.limit = None
    while not runs or "cpu" not in runs[-1]["report"]["memory_steps"]:
        Memory.peak = 0
        result = segmenter.segment(study, options)
        wanted = replace(options, window=result.window_choice, tta=result.tta["mode"])
        expected = same.segment(study, wanted).labels
        runs.append(
            {
                "report": result.report(),
                "other_voxels": int((result.labels != expected).sum()),
                "kinds": len(set(expected.ravel().tolist())),
                "kept": Memory.used() - base,
                "peak": Memory.peak,
            }
        )
        Memory.limit = Memory.peak - 1
    return runs


def on_card(backend: str, batch: int = 1, **card: object) -> Segmenter:
    """A segmenter on the card, whose scans would be those of `backend`."""
    segmenter = make_segmenter("card", batch, **card)
    segmenter._backend = backend  # type: ignore[assignment]  # as a GPU's would be chosen
    return segmenter


def differing_on_host(backend: str) -> list[int]:
    """Voxels that differ from the CPU's: with sums in the host's memory, at another spacing."""
    study = make_study()
    differing: list[int] = []
    for card in ({}, {"spacing_mm": [1.5, 1.5, 1.5]}):
        labels = on_card(backend, **card).segment(study).labels
        expected = make_segmenter("cpu", **card).segment(study).labels
        differing.append(int((labels != expected).sum()))
    return differing


def on_host(**settings: Any) -> Run:
    """As after the rung of that name."""
    return Run(**(settings | {"sums_on_host": True}))


def answer(name: str, *backend: str) -> object:
    """What goes to stdout."""
    if name != "host":
        return descend(*backend, **SCENARIOS[name])
    segmenters.Run = on_host  # type: ignore[assignment,misc]
    return [count for kernel in CUDA_KERNELS for count in differing_on_host(kernel)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    json.dump(answer(*sys.argv[1:]), sys.stdout)
