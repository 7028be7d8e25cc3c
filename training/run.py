"""Start a training run, or continue one: what is asked for becomes a `training.job.Job`.

With several processes (`training.loop.processes`) all of them come through here and reach the same
config and the same split; only the first makes folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from model_core.errors import CheckpointError, OptionError
from training.checks import check_fit, check_request
from training.config import TrainConfig
from training.configure import Configured, configure
from training.data.dataset import Dataset
from training.data.split import Split, find_split, restore_split
from training.initial import Beginning, fit_initial, read_initial
from training.job import Job, carry_out, is_finished
from training.loop.processes import is_first
from training.request import RunRequest
from training.runs.reporter import Reporter
from training.runs.run_folder import RunFolder

__all__ = ["RunRequest", "go_on", "resume", "run", "start"]


def run(
    recipe: TrainConfig,
    request: RunRequest,
    console: Console | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Start a new run and see it through.

    Args:
        recipe: a whole config; the data set's plan and `settings` change it.
        request: where the data is and where the results go; one fold, or no folds.
        console: where the run speaks; ``None``: nowhere.
        settings: changes of single settings (`TrainConfig.with_settings`); they win over the plan.

    Raises:
        OptionError: a name that is taken, or anything else that would fail later.
    """
    check_request(request)
    dataset = request.dataset()
    configured = configured_for(recipe, dataset, request, console, settings=settings)
    start(configured, dataset, request, console)
    return folder_of(request)


def resume(
    settings: Mapping[str, Any], request: RunRequest, console: Console | None = None
) -> RunFolder:
    """Continue a run from its last checkpoint, with changed `settings` if any are given.

    A run that ended before its first checkpoint begins anew; one that is finished, and whose
    settings stay, is left alone.

    Raises:
        OptionError: no such run, or other data than it was started on.
    """
    check_request(request)
    go_on(settings, request, console)
    return folder_of(request)


def folder_of(request: RunRequest) -> RunFolder:
    """The folder of the one run that is asked for."""
    results, name = request.place
    return RunFolder(results / name)


def configured_for(
    recipe: TrainConfig,
    dataset: Dataset,
    request: RunRequest,
    console: Console | None,
    *,
    settings: Mapping[str, Any] | None,
) -> Configured:
    """The config that the first process makes; the others, started by it, read what it wrote."""
    written = folder_of(request).config
    if not is_first() and written.is_file():
        return Configured(config=TrainConfig.from_json(json.loads(written.read_text())))
    return configure(recipe, dataset, plan=request.plan, settings=settings, console=console)


def start(
    configured: Configured,
    dataset: Dataset,
    request: RunRequest,
    console: Console | None = None,
) -> bool:
    """Start a new run of a config that is complete already; whether it came to its end."""
    config = configured.config.settled(request.options.device)
    request = request.at_home(dataset)
    check_fit(config, dataset, request)
    split = _split(dataset, request)
    config, beginning = _begun(config, request)
    folder = RunFolder.create(*request.place) if is_first() else folder_of(request)
    job = Job(
        config=config, plan=configured.plan, dataset=dataset, split=split, folder=folder,
        request=request, beginning=beginning,
    )  # fmt: skip
    return carry_out(job, console)


def go_on(settings: Mapping[str, Any], request: RunRequest, console: Console | None = None) -> bool:
    """What `resume` does; whether the run came to its end."""
    folder = RunFolder.existing(*request.place)
    kept = TrainConfig.from_json(json.loads(folder.config.read_text()))
    config = kept.with_settings(settings).settled(request.options.device)
    if is_finished(folder) and config == kept:
        Reporter(console if is_first() else None).say(
            f"{request.title} is finished: nothing to continue"
        )
        return True
    dataset = request.dataset()
    check_fit(config, dataset, request)
    job = Job(
        config=config,
        dataset=dataset,
        split=restore_split(dataset, json.loads(folder.split.read_text())),
        folder=folder,
        request=request.at_home(dataset),
        beginning=None if folder.last.is_file() else _begun(config, request)[1],
    )
    return carry_out(job, console)


def _split(dataset: Dataset, request: RunRequest) -> Split:
    if request.fold is None:
        return find_split(dataset, request.validation)
    assert isinstance(request.fold, int), "training.folds takes the folds one by one"
    return find_split(dataset, fold=request.fold, folds=request.folds)


def _begun(config: TrainConfig, request: RunRequest) -> tuple[TrainConfig, Beginning | None]:
    """The config with the fingerprint of its initial weights, and what is taken of them.

    A config that has a fingerprint already (a continued run, a further fold) insists on it.
    """
    if request.initial is None:
        if config.initial is None:
            return config, None
        raise OptionError(
            "from",
            expected="the weights that the run was to begin from: it has saved nothing yet",
            got="none",
            way_out="Give the same --from as before.",
        )
    initial = read_initial(request.initial)
    found = initial.fingerprint
    if config.initial not in (None, found):
        raise CheckpointError(
            "--from holds other weights than those the run was to begin from "
            f"({config.initial}). Give the same ones, or start a new run."
        )
    return config.with_settings({"initial": found}), fit_initial(initial, config)
