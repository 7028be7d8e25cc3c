"""The final judgement: whole cases on their native grids, by the best weights, with their scores.

The cases are those that the weights have not seen, so in a run of one fold the predictions are
*out of fold*; they are kept as they left the network (``predictions/raw``), and corrections that
the config names are applied to what is scored.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from model_core.metrics import CaseMetrics
from training.bars import counting
from training.data.dataset import CaseFiles, Dataset
from training.data.images import read_labels, write_labels
from training.judge.score import CaseScore, score_case, scores_to_json
from training.naming import shown_names
from training.task import Task

if TYPE_CHECKING:
    from training.judge.corrections import Corrections
    from training.judge.models import Model

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores by the cases' shown names."""

    task: Task
    cases: Mapping[str, CaseScore]
    corrected: bool
    """Whether corrections were applied before scoring."""

    def to_json(self) -> dict[str, Any]:
        """As ``segmamba evaluate`` writes it, and on what the scores are."""
        if not self.cases:
            return {"cases": [], "summary": {}}
        return {**scores_to_json(self.cases, self.task), "corrected": self.corrected}


@dataclass(frozen=True, kw_only=True)
class Court:
    """What is done with each case besides scoring it."""

    corrections: Corrections | None = None
    """Applied to what is scored."""
    keep: Path | None = None
    """Folder for the raw predictions, in the data set's own values; it is replaced."""
    console: Console | None = None
    """Shows a bar on a terminal."""
    say: Say = field(default=lambda _: None)
    """Told of each case's scores."""


def judge(
    model: Path, dataset: Dataset, cases: Sequence[CaseFiles], *, device: str, court: Court
) -> Evaluation:
    """Predict whole cases and score them.

    Args:
        model: folder of a run or a bundle.
        dataset: that the cases belong to.
        cases: with a truth.
        device: where the network runs.
        court: see `Court`.

    Raises:
        StudyError: the data set has other labels or channels than the model.
    """
    from training.judge.inputs import with_labels_of
    from training.judge.loading import load_model

    trained = load_model(model, device=device)
    dataset = with_labels_of(dataset, trained.task)
    if court.keep is not None:
        _emptied(court.keep)
    scores: dict[str, CaseScore] = {}
    names = shown_names([case.name for case in cases])
    with counting(court.console, "final evaluation") as count:
        for done, (name, case) in enumerate(zip(names, cases, strict=True)):
            count("evaluate", done, len(cases))
            scores[name] = _judge_case(trained, case, dataset, court)
            court.say(f"{name} · {describe(scores[name])}")
    corrected = court.corrections is not None
    return Evaluation(task=trained.task, cases=scores, corrected=corrected)


def describe(case: CaseMetrics) -> str:
    """``WT 0.912 · TC 0.850 · ET 0.802``."""
    return " · ".join(f"{region} {score.dice:.3f}" for region, score in case.regions.items())


def _judge_case(model: Model, case: CaseFiles, dataset: Dataset, court: Court) -> CaseScore:
    from training.judge.predict import ending_of, predict_case

    labels, image = predict_case(model, case, dataset)
    if court.keep is not None:
        write_labels(court.keep / f"{case.name}{ending_of(case)}", labels, image, dataset)
    if court.corrections is not None:
        from training.judge.corrections import apply_corrections

        labels, _ = apply_corrections(labels, image.spacing_mm, model.task, court.corrections)
    truth = read_labels(case, dataset, on=image.grid)
    return score_case(labels, truth, model.task, image.spacing_mm)


def _emptied(folder: Path) -> None:
    """Predictions of other weights must not stay beside the new ones."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
