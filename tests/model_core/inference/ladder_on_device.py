"""In a process of its own: run a study on a device with less and less memory; JSON on stdout.

A list of runs; the device of each has a byte less than the run before it took.
"""

import json
import sys
from dataclasses import replace
from typing import Any

import torch

from model_core.inference.segmenter import SegmentOptions
from tests.model_core.inference.pretend_device import Memory
from tests.model_core.inference.small_network import make_segmenter, make_study

SCENARIOS: dict[str, dict[str, Any]] = {
    "batch": {"batch": 4, "options": SegmentOptions(allow_fewer_passes=False)},
    "passes": {"options": SegmentOptions(tta="fast", allow_fewer_passes=True)},
    "whole": {"options": SegmentOptions(window="whole")},
    "resampled": {"options": SegmentOptions(), "spacing_mm": [1.5, 1.5, 1.5]},
}


def descend(options: SegmentOptions, batch: int = 1, **card: object) -> list[dict[str, Any]]:
    study = make_study()
    segmenter = make_segmenter("card", batch, **card)
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    json.dump(descend(**SCENARIOS[sys.argv[1]]), sys.stdout)
