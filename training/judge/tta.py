"""Test-time augmentation off and on, side by side: what it gains in Dice and costs in seconds.

Each case is predicted by every mode on the same machine, one after another, and the mode that goes
first changes from case to case, so that warm caches favour none. Timed is the whole prediction
from read images to labels on the native grid.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

from model_core.errors import OptionError
from model_core.inference.sliding_window import Watch, raise_if_cancelled
from model_core.types import CancelCheck, Tta
from training.data.dataset import CaseFiles
from training.data.images import read_images, read_labels
from training.judge.inputs import Inputs
from training.judge.models import Model
from training.judge.predict import Bars
from training.judge.score import CaseScore, score_case
from training.naming import shown_names

SCHEMA: Final = "segmamba-tta/1"
MODES: Final[tuple[Tta, ...]] = ("none", "fast", "full")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One case, predicted in one mode."""

    seconds: float
    score: CaseScore


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All trials: case (its shown name) → mode → trial."""

    trials: Mapping[str, Mapping[Tta, Trial]]
    passes: Mapping[Tta, int]
    """Forward passes a window, per mode; the first mode is what the others are compared with."""

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the regions that are scored."""
        first = next(iter(self.trials.values()))
        return tuple(next(iter(first.values())).score.regions)

    def dice(self, mode: Tta) -> dict[str, float]:
        """Mean Dice over the cases, per region."""
        return {
            region: statistics.fmean(
                trials[mode].score.regions[region].dice for trials in self.trials.values()
            )
            for region in self.regions
        }

    def mean_dice(self, mode: Tta) -> float:
        """Mean over cases and regions."""
        return statistics.fmean(self.dice(mode).values())

    def gain(self, mode: Tta) -> float:
        """Mean Dice above that of the first mode."""
        return self.mean_dice(mode) - self.mean_dice(next(iter(self.passes)))

    def seconds(self, mode: Tta) -> float:
        """Median over the cases."""
        return statistics.median(trials[mode].seconds for trials in self.trials.values())

    def cost(self, mode: Tta) -> float:
        """Seconds relative to the first mode: the median of the cases' ratios."""
        first = next(iter(self.passes))
        return statistics.median(
            trials[mode].seconds / trials[first].seconds for trials in self.trials.values()
        )

    def to_json(self) -> dict[str, Any]:
        """Modes and cases as plain values; cases by their shown names."""
        return {
            "schema": SCHEMA,
            "modes": {
                mode: {
                    "passes": passes,
                    "dice": self.dice(mode),
                    "mean_dice": self.mean_dice(mode),
                    "gain": self.gain(mode),
                    "median_seconds": self.seconds(mode),
                    "cost": self.cost(mode),
                }
                for mode, passes in self.passes.items()
            },
            "cases": [
                {
                    "case": name,
                    "modes": {mode: _trial_json(trial) for mode, trial in trials.items()},
                }
                for name, trials in self.trials.items()
            ],
        }


def unseen_cases(model: Model, cases: Sequence[CaseFiles]) -> tuple[CaseFiles, ...]:
    """Cases with a truth that did not train the model.

    Raises:
        OptionError: none is left.
    """
    labelled = [case for case in cases if case.label is not None]
    unseen = tuple(case for case in labelled if case.name not in model.trained_on)
    if not unseen:
        raise OptionError(
            "data",
            expected="cases with a truth that did not train the model",
            got=f"{len(labelled)} with a truth, all of which trained it",
            way_out="Give other data, or one fold of a set: --fold K.",
        )
    return unseen


def compare_tta(
    model: Model,
    inputs: Inputs,
    modes: Sequence[Tta] = MODES,
    *,
    bars: Bars | None = None,
    cancelled: CancelCheck | None = None,
) -> Comparison:
    """Predict every case in every mode.

    Args:
        model: from `training.judge.loading.load_model`.
        inputs: cases with a truth.
        modes: the first is what the others are compared with.
        bars: told of the progress.
        cancelled: asked between windows.

    Raises:
        Cancelled: nothing is kept.
        StudyError, ImageError: a case that cannot be read.
    """
    trials: dict[str, dict[Tta, Trial]] = {}
    names = shown_names([case.name for case in inputs.cases])
    for number, (name, case) in enumerate(zip(names, inputs.cases, strict=True)):
        volumes = read_images(case, model.task)
        truth = read_labels(case, inputs.dataset, on=volumes[0].grid)
        measured: dict[Tta, Trial] = {}
        for mode in _turned(modes, number):
            raise_if_cancelled(cancelled)
            if bars:
                bars.start_study(case.name, f"--tta {mode}")
            watch = Watch(progress=bars.update if bars else None, cancelled=cancelled)
            began = perf_counter()
            labels = model.predict(volumes, tta=mode, watch=watch)
            seconds = perf_counter() - began
            score = score_case(labels, truth, model.task, volumes[0].spacing_mm)
            measured[mode] = Trial(seconds=seconds, score=score)
        trials[name] = {mode: measured[mode] for mode in modes}
        if bars:
            bars.finish_study()
    return Comparison(trials=trials, passes={mode: model.passes(mode) for mode in modes})


def _turned(modes: Sequence[Tta], by: int) -> list[Tta]:
    start = by % len(modes)
    return [*modes[start:], *modes[:start]]


def _trial_json(trial: Trial) -> dict[str, Any]:
    return {
        "seconds": trial.seconds,
        "mean_dice": trial.score.mean_dice,
        "dice": {region: one.dice for region, one in trial.score.regions.items()},
        "hd95_mm": {region: one.hd95_mm for region, one in trial.score.regions.items()},
    }
