"""What predicting a set of cases gave: one record a case, and all of them as ``summary.json``.

The file lies beside the label maps in the user's own folder and names the cases as they do.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from training.judge.score import CaseScore, scores_to_json
from training.task import Task

SCHEMA: Final = "segmamba-predictions/1"
"""Changes when a field is renamed, moved or redefined; new fields do not change it."""
RAW, CORRECTED = "raw", "postprocessed"


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One predicted case."""

    name: str
    seconds: float
    """Reading, predicting, correcting, scoring, writing and drawing."""
    predicted: bool
    """False where the label map was there already."""
    voxels: Mapping[str, int]
    """Of every region, as the network gave it."""
    voxel_ml: float | None
    """Millilitres of a voxel; None for pictures, which have no size."""
    steps: Sequence[Mapping[str, Any]] = ()
    """What each correction changed."""
    changed_voxels: int | None = None
    """By all corrections together; None where there are none."""
    scores: Mapping[str, CaseScore] | None = None
    """`RAW` and, where there are corrections, `CORRECTED`; None without a truth."""

    @property
    def sizes(self) -> Mapping[str, float]:
        """Millilitres of every region; pixels of a picture."""
        return {name: count * (self.voxel_ml or 1) for name, count in self.voxels.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain values; the scores are in the summary's own part."""
        values: dict[str, Any] = {
            "case": self.name,
            "seconds": round(self.seconds, 3),
            "predicted": self.predicted,
            "voxels": dict(self.voxels),
        }
        if self.voxel_ml is not None:
            values["volumes_ml"] = dict(self.sizes)
        if self.changed_voxels is not None:
            values["changed_voxels"] = self.changed_voxels
            values["steps"] = [dict(step) for step in self.steps]
        return values


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A case that could not be predicted, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Results:
    """All cases of one call."""

    settings: Mapping[str, Any]
    """Model, weights, passes and corrections: what must agree for results to lie together."""
    task: Task
    done: tuple[CaseResult, ...] = ()
    failed: tuple[Failure, ...] = ()
    trained_on: frozenset[str] = frozenset()
    """Names of cases that the weights have seen."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Case → what its `RAW` label map was made from (`training.judge.outputs.source_of`), of
    earlier calls too."""

    def scores(self, kind: str) -> dict[str, CaseScore]:
        """Scores of the cases that have a truth, `RAW` or `CORRECTED`."""
        return {
            result.name: result.scores[kind]
            for result in self.done
            if result.scores is not None and kind in result.scores
        }

    def gain(self) -> dict[str, float]:
        """Mean Dice after the corrections minus before, per region; empty where not known."""
        before, after = self.scores(RAW), self.scores(CORRECTED)
        if not after:
            return {}
        return {
            region: statistics.fmean(
                after[name].regions[region].dice - before[name].regions[region].dice
                for name in after
            )
            for region in next(iter(after.values())).regions
        }

    def to_json(self) -> dict[str, Any]:
        """The content of ``summary.json``."""
        values: dict[str, Any] = {
            "schema": SCHEMA,
            "settings": dict(self.settings),
            "sources": dict(self.sources),
            "cases": [result.to_json() for result in self.done],
            "failed": [{"case": one.name, "reason": one.reason} for one in self.failed],
        }
        changed = [r.changed_voxels for r in self.done if r.changed_voxels is not None]
        if changed:
            values["corrections"] = {
                "cases": len(changed),
                "cases_changed": sum(count > 0 for count in changed),
                "voxels_changed": sum(changed),
                "dice_gain": self.gain(),
            }
        scores = {kind: self.scores(kind) for kind in (RAW, CORRECTED)}
        seen = sorted(name for name in scores[RAW] if name in self.trained_on)
        if seen:
            values["scored_but_trained_on"] = seen
        values["scores"] = {
            kind: scores_to_json(found, self.task) for kind, found in scores.items() if found
        }
        return values
