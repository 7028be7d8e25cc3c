"""The model without any service around it: a loop that reads, segments, measures and encodes.

``python -m benchmarks.bare`` is that loop in a process of its own, one run for each line on stdin.
The servers of `benchmarks.litserve_way` and `benchmarks.bentoml_way` give a label map only, without
the figures and flags that a worker's answer has, and so does `label_map`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import psutil

from model_core.allocator import keep_freed_memory
from model_core.checkpoints import load_bundle
from model_core.cpu import limit_threads
from model_core.imaging.study import load_study
from model_core.inference.segmentation import SegmentOptions
from model_core.inference.segmenter import Segmenter
from model_core.pipeline.answer import answer
from model_core.preparation.prepared import as_it_is
from model_core.types import Contrast

ORDER_VARIABLE: Final = "BENCHMARK_ORDER"
"""Names the bundle, the threads and the options, as JSON."""


def warm_segmenter() -> tuple[Segmenter, SegmentOptions]:
    """The model and options that the environment names, warm, as a worker of the service has it."""
    order = json.loads(os.environ[ORDER_VARIABLE])
    keep_freed_memory()
    limit_threads(order["threads"])
    segmenter = Segmenter(load_bundle(order["bundle"]), precision="auto")  # as the service does
    segmenter.warm_up()
    return segmenter, SegmentOptions(**order["options"])


def label_map(
    segmenter: Segmenter, options: SegmentOptions, images: Mapping[Contrast, Path | bytes]
) -> bytes:
    """From image files, or their bytes, to a label map file's bytes."""
    return segmenter.segment(load_study(images), options).encode()


def whole_answer(
    segmenter: Segmenter, options: SegmentOptions, images: Mapping[Contrast, Path | bytes]
) -> bytes:
    """The same with all that a worker's answer has: figures, flags, and the file read back."""
    return answer(segmenter, as_it_is(load_study(images)), options).label_map


class BareLoop:
    """The parent's end of the loop."""

    def __init__(self, process: subprocess.Popen[str], images: Mapping[str, str]) -> None:
        self._process, self._images = process, dict(images)
        self.process = psutil.Process(process.pid)

    def run(self) -> dict[str, Any]:
        """One run: ``seconds``, and the label map's file in hexadecimal digits."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._images) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def bare_loop(
    python: str, environment: Mapping[str, str], images: Mapping[str, str]
) -> Iterator[BareLoop]:
    """The loop in a process of its own, warm."""
    process = subprocess.Popen(
        [python, "-W", "ignore", "-m", "benchmarks.bare"], env=dict(environment),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    try:
        loop = BareLoop(process, images)
        loop.run()
        yield loop
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """One run for each line, until stdin ends."""
    segmenter, options = warm_segmenter()
    for line in sys.stdin:
        images: dict[Contrast, Path] = {
            contrast: Path(path) for contrast, path in json.loads(line).items()
        }
        began = perf_counter()
        made = whole_answer(segmenter, options, images)
        took = perf_counter() - began
        print(json.dumps({"seconds": took, "label_map": made.hex()}), flush=True)


if __name__ == "__main__":
    main()
