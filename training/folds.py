"""Cross-validation: the folds of one data set one after another, resumable as a whole.

::

    results/NAME/
    ├── request.json              where the data is
    ├── fold_0/ … fold_4/         whole runs, each with its out-of-fold predictions
    ├── cache/                    prepared cases, shared
    └── cross_validation.json     scores of every case by the network that did not see it
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from model_core.errors import OptionError
from training import run as runs
from training.checks import check_request
from training.config import TrainConfig
from training.configure import Configured
from training.data.dataset import Dataset
from training.data.split import find_split
from training.job import is_finished
from training.loop.processes import is_first
from training.request import RunRequest
from training.runs.run_folder import RunFolder, read_json, write_json


def run_folds(
    recipe: TrainConfig,
    request: RunRequest,
    console: Console | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
) -> list[RunFolder]:
    """Start a cross-validation; one plan holds for all folds.

    Raises:
        OptionError: a fold of that name exists, or fewer cases than folds.
    """
    check_request(request)
    dataset = request.dataset()
    first = request.of_fold(0)
    configured = runs.configured_for(recipe, dataset, first, console, settings=settings)
    find_split(dataset, fold=0, folds=request.folds)  # refuses too few cases now
    taken = [fold.path.name for fold in _folds(request) if fold.config.exists()]
    if taken and is_first():
        raise OptionError(
            "name",
            expected="a name no other cross-validation has",
            got=f"{request.name!r}, which holds {', '.join(taken)}",
            way_out="Choose another --name, or complete that one with --resume.",
        )
    return _go(configured, {}, dataset, request, console)


def resume_folds(
    settings: Mapping[str, Any], request: RunRequest, console: Console | None = None
) -> list[RunFolder]:
    """Continue a cross-validation: finished folds stay, a stopped one goes on, the rest follow.

    Raises:
        OptionError: no fold of that name, or other cases than it was started on.
    """
    check_request(request)
    begun = [fold for fold in _folds(request) if fold.config.exists()]
    if not begun:
        raise OptionError(
            "name",
            expected="the name of a cross-validation in the results folder",
            got=repr(request.name),
            way_out="Check --out and --name, or start it without --resume.",
        )
    dataset = request.dataset()
    _check_same_cases(begun[0], dataset, request)
    config = TrainConfig.from_json(json.loads(begun[0].config.read_text()))
    configured = Configured(config=config.with_settings(settings))
    return _go(configured, settings, dataset, request, console)


def _go(
    configured: Configured,
    changed: Mapping[str, Any],
    dataset: Dataset,
    request: RunRequest,
    console: Console | None,
) -> list[RunFolder]:
    """Each fold in turn; a fold that the user stops is the last."""
    if is_first():
        request.keep()
    folds = _folds(request)
    for number, folder in enumerate(folds):
        one = request.of_fold(number)
        if folder.config.exists() and (is_first() or is_finished(folder)):
            ended = runs.go_on(changed, one, console)
        else:
            ended = runs.start(configured, dataset, one, console)
        if not ended:
            return folds
    _summarise(request, folds, console)
    return folds


def _folds(request: RunRequest) -> list[RunFolder]:
    return [RunFolder(request.root / f"fold_{number}") for number in range(request.folds)]


def _check_same_cases(begun: RunFolder, dataset: Dataset, request: RunRequest) -> None:
    """The folds must be those that were begun: else a case might judge what it trained."""
    number = int(begun.path.name.removeprefix("fold_"))
    expected = find_split(dataset, fold=number, folds=request.folds).to_json()
    if json.loads(begun.split.read_text()) != json.loads(json.dumps(expected)):
        raise OptionError(
            "folds",
            expected=f"the cases and the number of folds that {begun.path.name} was begun with",
            got=f"{len(dataset.labelled)} cases in {request.folds} folds, which split differently",
            way_out="Give the same data and --folds, or start anew under another --name.",
        )


def _summarise(request: RunRequest, folds: list[RunFolder], console: Console | None) -> None:
    """All out-of-fold scores together."""
    if not is_first():
        return
    cases = [
        {**case, "fold": number}
        for number, folder in enumerate(folds)
        for case in (read_json(folder.final_metrics) or {})["cases"]
    ]
    regions = list(cases[0]["regions"])
    dice = {region: [case["regions"][region]["dice"] for case in cases] for region in regions}
    summary = {
        region: {"mean": statistics.fmean(values), "sd": _sd(values), "n": len(values)}
        for region, values in dice.items()
    }
    target = request.root / "cross_validation.json"
    write_json(target, {"folds": len(folds), "dice": summary, "cases": cases})
    if console is not None:
        words = " · ".join(
            f"{region} {spread['mean']:.3f} ± {spread['sd'] or 0:.3f}"
            for region, spread in summary.items()
        )
        console.print(f"out-of-fold Dice of {len(cases)} cases: {words}")
        console.print(f"cross-validation: {target}")


def _sd(values: list[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
