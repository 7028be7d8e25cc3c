"""An invented run: what a trainer records of a hundred steps, without a trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.recipes import small_segmamba
from training.runs.run_folder import RunFolder, write_json

MakeRun = Callable[..., RunFolder]
REGIONS = ("WT", "TC", "ET")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Builds ``tmp_path/results/NAME``; `scores` are the mean Dice of its evaluations, in order."""

    def make(
        name: str = "first",
        scores: tuple[float, ...] = (0.5, 0.8, 0.7),
        *,
        steps: int = 100,
        ended: str | None = "finished",
        **settings: Any,
    ) -> RunFolder:
        place = tmp_path / "results" / name
        folder = RunFolder.create(place.parent, place.name)
        config = dataclasses.replace(small_segmamba(), steps=steps, **settings)
        write_json(folder.config, config.to_json())
        names = {"training": ["BraTS2021_00001", "Smith_Anna"], "validation": ["Jones_Bob"]}
        write_json(folder.split, names)
        for step in range(10, steps + 1, 10):
            folder.record(
                "step", step=step, loss=2 - step / steps, learning_rate=1e-3 * step,
                gradient_norm=1.0, seconds=2.0, elapsed=36.0 * step, progress=step / steps,
            )  # fmt: skip
        for number, score in enumerate(scores, start=1):
            step = number * steps // len(scores)
            case = {"WT": score + 0.1, "TC": score, "ET": score - 0.1}
            folder.record("validation", step=step, cases={"case 1": case}, mean=case, score=score)
        if ended is not None:
            folder.record("end", step=steps, reason=ended)
        folder.close()
        return folder

    return make
