"""The search for corrections: which steps make predictions better that their model never saw.

Stages come in a fixed order, from the outermost region inwards: small components or all but the
largest leave a region (of BraTS, all ET may become NCR where there is little of it), then holes
are filled. A stage's best candidate is accepted if the mean over cases and regions rises by more
than a margin and no region falls. Among candidates within that margin of the best the gentlest is
taken.

The scores after such a search flatter it: the steps were chosen on those cases. So the search is
repeated without each case in turn and applied to it; the mean of what that gains is the honest
estimate. Steps that do not gain there are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_core.postprocess import GLIOMA, Step
from model_core.types import Progress
from training.judge.scoreboard import Chain, Scoreboard, Scores

MARGIN: Final = 0.0005
"""Rise of the mean over cases and regions that a step must bring: a twentieth of a Dice point."""
FALL: Final = 1e-6
"""A region whose mean falls by more has dropped."""
FEWEST_CASES: Final = 3
COMPONENT_MM3: Final = (5.0, 10.0, 25.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
HOLES_MM3: Final = (50.0, 500.0, None)
"""Largest hole that is filled; ``None``: any."""


@dataclass(frozen=True)
class Stage:
    """Candidates for one place in the chain, the gentlest first."""

    title: str
    candidates: tuple[Step, ...]


@dataclass(frozen=True)
class Tried:
    """One candidate, and the means per region after it."""

    step: Step
    means: tuple[float, ...]
    accepted: bool


@dataclass(frozen=True)
class Trial:
    """One stage of the search: where it began and what was tried."""

    stage: str
    before: tuple[float, ...]
    tried: tuple[Tried, ...]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a search found.

    Attributes:
        kept: the steps to use; empty if there are too few cases or nothing was gained honestly.
        found: the steps that the search on all cases accepted.
        verdict: in one sentence, why they are kept or not.
        before: scores without corrections.
        after: scores after `found`, on the cases that chose it.
        honest: scores of each case after the search that did not see it; absent if there are too
            few cases or nothing was found.
        agreeing: in how many of those searches the same steps were found.
        trials: the search on all cases, stage by stage.
    """

    kept: Chain
    found: Chain
    verdict: str
    before: Scores
    after: Scores
    honest: Scores | None = None
    agreeing: int = 0
    trials: tuple[Trial, ...] = field(default=())


def stages_for(board: Scoreboard) -> tuple[Stage, ...]:
    """The stages of a task, thresholds that cannot remove a single voxel left out."""
    stages = [
        Stage(f"components of {name}", tuple(_removals(board, name)))
        for name in board.rules.regions
    ]
    for name, rule in board.rules.regions.items():
        if rule.joining is not None:
            stages.append(Stage(f"holes of {name}", tuple(_fillings(board, name))))
    return tuple(stages)


def find_corrections(
    board: Scoreboard, *, margin: float = MARGIN, progress: Progress | None = None
) -> Finding:
    """Search the corrections of a board's task on its cases; see the module.

    Args:
        board: out-of-fold predictions, none of a case that will be reported.
        margin: rise of the mean that a step must bring.
        progress: told the candidates of the search, then the cases left out.
    """
    before = board.scores()
    if len(board) < FEWEST_CASES:
        return Finding(
            kept=(),
            found=(),
            verdict=f"No corrections: {len(board)} cases are too few to choose any "
            f"(at least {FEWEST_CASES}).",
            before=before,
            after=before,
        )
    stages = stages_for(board)
    everyone = np.ones(len(board), np.bool_)
    trials = tuple(_search(board, stages, everyone, margin=margin, progress=progress))
    found = _accepted(trials)
    after = board.scores(found)
    if not found:
        verdict = "No corrections: no step raised the mean enough without a region falling."
        return Finding(
            kept=(), found=(), verdict=verdict, before=before, after=before, trials=trials
        )
    chains = _left_out(board, stages, margin=margin, progress=progress)
    honest = np.stack([board.scores(chain)[index] for index, chain in enumerate(chains)])
    gain = float((honest - before).mean())
    return Finding(
        kept=found if gain > 0 else (),
        found=found,
        verdict=_verdict(float((after - before).mean()), gain),
        before=before,
        after=after,
        honest=honest,
        agreeing=sum(chain == found for chain in chains),
        trials=trials,
    )


def _verdict(optimistic: float, honest: float) -> str:
    gains = f"{optimistic:+.4f} on the cases that chose it, {honest:+.4f} on cases left out"
    if honest > 0:
        return f"Kept: the mean rises by {gains}."
    return f"No corrections: what the search found is not confirmed ({gains})."


# ---------------------------------------------------------------- candidates


def _removals(board: Scoreboard, region: str) -> Iterator[Step]:
    """Thresholds from the smallest up, then all but the largest.

    Turning all ET into NCR where there is little of it changes less than taking every component
    of that size out, so it comes first.
    """
    smallest = min(float(np.prod(spacing)) for spacing in board.spacings)
    for mm3 in COMPONENT_MM3:
        if mm3 > smallest and board.rules is GLIOMA and region == "ET":
            yield _step(board, "relabel_small_et", min_mm3=mm3)
        if mm3 > smallest:
            yield _step(board, "remove_small_components", region=region, min_mm3=mm3)
    yield _step(board, "keep_largest", region=region)


def _fillings(board: Scoreboard, region: str) -> Iterator[Step]:
    for limit in HOLES_MM3:
        extra: dict[str, Any] = {} if limit is None else {"max_mm3": limit}
        yield _step(board, "fill_holes", region=region, **extra)


def _step(board: Scoreboard, name: str, **params: Any) -> Step:
    plain = {"name": name, "params": params}
    return Step.model_validate(plain, context={"rules": board.rules})


# ---------------------------------------------------------------- search


def _left_out(
    board: Scoreboard, stages: tuple[Stage, ...], *, margin: float, progress: Progress | None
) -> list[Chain]:
    """The steps that the search finds without each case in turn."""
    chains = []
    for index in range(len(board)):
        others = np.arange(len(board)) != index
        chains.append(_accepted(tuple(_search(board, stages, others, margin=margin))))
        if progress:
            progress("leaving one case out", index + 1, len(board))
    return chains


def _search(
    board: Scoreboard,
    stages: tuple[Stage, ...],
    cases: NDArray[np.bool_],
    *,
    margin: float,
    progress: Progress | None = None,
) -> Iterator[Trial]:
    """Go through the stages on some of the cases, each on what the ones before it left."""
    chain: Chain = ()
    total, done = sum(len(stage.candidates) for stage in stages), 0
    for stage in stages:
        before = board.scores(chain)[cases].mean(axis=0)
        means = []
        for step in stage.candidates:
            means.append(board.scores((*chain, step))[cases].mean(axis=0))
            done += 1
            if progress:
                progress("trying corrections", done, total)
        chosen = _choose(before, means, margin)
        yield Trial(
            stage=stage.title,
            before=tuple(before.tolist()),
            tried=tuple(
                Tried(step, tuple(mean.tolist()), accepted=index == chosen)
                for index, (step, mean) in enumerate(zip(stage.candidates, means, strict=True))
            ),
        )
        if chosen is not None:
            chain = (*chain, stage.candidates[chosen])


def _choose(before: Scores, means: list[Scores], margin: float) -> int | None:
    """Index of the gentlest candidate that is nearly the best, or none if none is good enough."""
    good = [
        (index, float(mean.mean()))
        for index, mean in enumerate(means)
        if mean.mean() > before.mean() + margin and (mean >= before - FALL).all()
    ]
    if not good:
        return None
    best = max(score for _, score in good)
    return next(index for index, score in good if score >= best - margin)


def _accepted(trials: tuple[Trial, ...]) -> Chain:
    return tuple(tried.step for trial in trials for tried in trial.tried if tried.accepted)
