"""How well label maps score after a chain of corrections: one table of cases by regions per chain.

A search asks for the same things again and again (each threshold, with each case left out), so
what was scored is kept: tables by chain, label maps by accepted chain (compressed), and the score
of a mask by its content. Maps are cut to the box around truth and prediction, which changes no
score and no correction.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from model_core.errors import InputError
from model_core.labels import Mask, labelled_box
from model_core.metrics import dice, lesionwise
from model_core.postprocess import Step, apply_step
from model_core.types import Shape3, Spacing
from training.judge.score import lesion_rules
from training.region_rules import rules_of
from training.task import LabelArray, Task

Objective = Literal["dice", "lesion-dice"]
OBJECTIVES: Final[tuple[Objective, ...]] = get_args(Objective)
Chain = tuple[Step, ...]
Scores = NDArray[np.float64]
"""(cases, regions), in the order of `Scoreboard.names` and `Scoreboard.regions`."""

_MARGIN: Final = 4
"""Voxels around the box: more than the lesion-wise score dilates."""
_Key = tuple[str, ...]


@dataclass(frozen=True)
class _Packed:
    """A label map, compressed: a few kilobytes instead of megabytes."""

    shape: Shape3
    data: bytes

    @classmethod
    def of(cls, labels: LabelArray) -> _Packed:
        x, y, z = labels.shape
        return cls((x, y, z), zlib.compress(labels.tobytes(), 1))

    def open(self) -> LabelArray:
        return np.frombuffer(zlib.decompress(self.data), np.uint8).reshape(self.shape)


class Scoreboard:
    """Predictions with their truth, and what they score after corrections.

    Args:
        task: labels and regions.
        objective: Dice, or the mean over lesions of Dice as BraTS 2023.
    """

    def __init__(self, task: Task, objective: Objective = "dice") -> None:
        self.task = task
        self.objective: Objective = objective
        self.regions = tuple(region.name for region in task.regions)
        self.rules = rules_of(task)
        self.names: list[str] = []
        self.spacings: list[Spacing] = []
        self._truth: list[_Packed] = []
        self._maps: dict[_Key, list[_Packed]] = {(): []}
        self._tables: dict[_Key, Scores] = {}
        self._scores: dict[tuple[int, str, bytes], float] = {}

    def __len__(self) -> int:
        """How many cases there are."""
        return len(self.names)

    def add(
        self, name: str, prediction: LabelArray, truth: LabelArray, spacing_mm: Spacing
    ) -> None:
        """Add a case before anything is scored.

        Args:
            name: what reports call it.
            prediction: internal labels (X, Y, Z) without corrections.
            truth: the same grid.
            spacing_mm: along the array axes.

        Raises:
            InputError: the shapes differ.
        """
        assert not self._tables, "cases come before scores"
        if prediction.shape != truth.shape:
            raise InputError(
                "prediction",
                expected=f"the truth's shape {truth.shape}",
                got=f"{prediction.shape}",
                way_out="Predict the images that the truth was drawn on.",
            )
        box = _padded_box(prediction, truth)
        self.names.append(name)
        self.spacings.append(spacing_mm)
        self._truth.append(_Packed.of(truth[box]))
        self._maps[()].append(_Packed.of(prediction[box]))

    def scores(self, chain: Chain = ()) -> Scores:
        """The objective of every case and region after the steps of `chain`."""
        key = _key(chain)
        if key not in self._tables:
            before = self.scores(chain[:-1]) if chain else None
            rows = [self._row(index, chain, before) for index in range(len(self))]
            self._tables[key] = np.array(rows, np.float64).reshape(len(self), len(self.regions))
        return self._tables[key]

    def dice(self, chain: Chain = ()) -> Scores:
        """Plain Dice of every case and region, whatever the objective is."""
        if self.objective == "dice":
            return self.scores(chain)
        maps = self._after(chain)
        return np.array(
            [
                [
                    dice(self.task.mask(labels, region), self.task.mask(truth, region))
                    for region in self.regions
                ]
                for labels, truth in (
                    (packed.open(), truth.open())
                    for packed, truth in zip(maps, self._truth, strict=True)
                )
            ]
        )

    def _row(self, index: int, chain: Chain, before: Scores | None) -> Sequence[float]:
        labels = self._after(chain[:-1])[index].open()
        if chain:
            assert before is not None
            corrected = apply_step(chain[-1], labels, self.spacings[index], self.rules)
            if np.array_equal(corrected, labels):
                return [float(score) for score in before[index]]
            labels = corrected
        truth = self._truth[index].open()
        return [self._score(index, region, labels, truth) for region in self.regions]

    def _score(self, index: int, region: str, labels: LabelArray, truth: LabelArray) -> float:
        mask = self.task.mask(labels, region)
        key = (index, region, hashlib.blake2b(np.packbits(mask).tobytes()).digest())
        if key not in self._scores:
            self._scores[key] = self._judge(
                mask, self.task.mask(truth, region), self.spacings[index]
            )
        return self._scores[key]

    def _judge(self, mask: Mask, truth: Mask, spacing_mm: Spacing) -> float:
        if self.objective == "dice":
            return dice(mask, truth)
        return lesionwise(mask, truth, spacing_mm, rules=lesion_rules(self.task)).dice

    def _after(self, chain: Chain) -> list[_Packed]:
        """Every case's label map after `chain`, kept because the search goes on from there."""
        key = _key(chain)
        if key not in self._maps:
            before = self._after(chain[:-1])
            self._maps[key] = [
                _Packed.of(apply_step(chain[-1], packed.open(), spacing, self.rules))
                for packed, spacing in zip(before, self.spacings, strict=True)
            ]
        return self._maps[key]


def _key(chain: Chain) -> _Key:
    return tuple(step.model_dump_json() for step in chain)


def _padded_box(prediction: LabelArray, truth: LabelArray) -> tuple[slice, ...]:
    box = labelled_box(prediction | truth)
    return tuple(slice(max(0, cut.start - _MARGIN), cut.stop + _MARGIN) for cut in box)
