"""A run whose config, split and beginning are settled: prepare the cases, train, conclude."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from model_core.cpu import usable_cpus
from training.bars import counting
from training.checks import disk_warning
from training.conclude import conclude, show
from training.config import TrainConfig
from training.data.cases import CachedCase, prepare_cases, weighted
from training.data.dataset import CaseFiles, Dataset
from training.data.plan import Plan
from training.data.split import Split
from training.initial import Beginning, begin
from training.loop.options import Cases
from training.loop.processes import is_first
from training.loop.trainer import Trainer
from training.request import RunRequest
from training.runs.reporter import Reporter, duration
from training.runs.run_folder import RunFolder, write_json

logger = logging.getLogger("training")

Prepared = tuple[CachedCase, ...]

_PREPARED_AT_A_TIME = 4
"""Each needs about half a gigabyte for a BraTS case."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, ready to go."""

    config: TrainConfig
    dataset: Dataset
    split: Split
    folder: RunFolder
    request: RunRequest
    plan: Plan | None = None
    """That went into the config, for people."""
    beginning: Beginning | None = None
    """Initial weights, for a run that has made no step."""


def is_finished(folder: RunFolder) -> bool:
    """Whether the run has been trained to its end and judged."""
    return any(record.get("reason") == "finished" for record in folder.records("end"))


def is_stopped(folder: RunFolder) -> bool:
    """Whether the run was last left before its end, saved."""
    return [record["reason"] for record in folder.records("end")][-1:] == ["stopped"]


def carry_out(job: Job, console: Console | None) -> bool:
    """See a run through, or to the point where the user stops it; it continues where it was.

    Returns:
        whether it was trained to its end; all processes agree, before the first one has judged.
    """
    reporter = Reporter(console if is_first() else None)
    with _at_work(job.folder, reporter):
        _describe(job)
        _introduce(job, reporter)
        trainer = Trainer(
            job.config,
            _prepare(job, reporter),
            folder=job.folder,
            options=job.request.options,
            reporter=reporter,
        )
        _set_off(trainer, job, reporter)
        state = trainer.train()
        if not is_first():
            return not trainer.stop_asked
        reporter.say(f"{state.step} steps in {duration(state.elapsed)}")
        if trainer.stop_asked:
            job.folder.record("end", step=state.step, reason="stopped")
            reporter.say("stopped; continue with --resume")
            return False
        conclude(
            job.folder, job.config, dataset=job.dataset, split=job.split, request=job.request,
            reporter=reporter,
        )  # fmt: skip
        job.folder.record("end", step=state.step, reason="finished")
    return True


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    """What a run keeps of its data set besides the cases' names: how its files number labels."""
    return {
        "name": dataset.name,
        "layout": dataset.layout,
        "channels": list(dataset.task.channels),
        "labels": list(dataset.task.labels),
        "values": {str(value): internal for value, internal in dataset.values.items()},
    }


def _describe(job: Job) -> None:
    """Write what the run is; ``config.json`` last, for with it the run exists.

    The record of an earlier end goes before: an end belongs to the config that it was reached with.
    """
    if is_first():
        job.folder.reopen()
        write_json(job.folder.path / "dataset.json", dataset_facts(job.dataset))
        write_json(job.folder.split, job.split.to_json())
        if job.plan is not None:
            write_json(job.folder.path / "plan.json", job.plan.to_json())
        write_json(job.folder.config, job.config.to_json())
        job.request.keep()


def _introduce(job: Job, reporter: Reporter) -> None:
    """Say what is trained; the whole config goes to the log, folders only to the screen."""
    config = job.config
    rule = f"{config.optimiser}, learning rate {config.learning_rate:g}, {config.precision}"
    reporter.say(
        f"{job.request.title}: {config.recipe} "
        f"({', '.join(config.task.channels)} → {', '.join(config.task.outputs)})"
    )
    reporter.say(
        f"{config.steps} steps of {config.batch * config.accumulate} patches of "
        f"{'×'.join(map(str, config.patch))}, {rule}"
    )
    for line in _planned(job.plan, config):
        reporter.say(line)
    show(reporter, f"data: {job.request.data}; all settings: {job.folder.config}")
    logger.info("config: %s", json.dumps(config.to_json()))


def _planned(plan: Plan | None, config: TrainConfig) -> Iterator[str]:
    """Each choice of the plan with its reason, and what the user has set instead."""
    for name, reason in (plan.reasons if plan else {}).items():
        planned = getattr(plan, name)
        used = getattr(config, name, planned)
        instead = "" if used == planned else f" (set to {used} instead)"
        yield f"planned {name} {planned}: {reason}{instead}"


def _set_off(trainer: Trainer, job: Job, reporter: Reporter) -> None:
    """Continue from the last checkpoint, or begin from the initial weights."""
    if job.folder.last.is_file():
        trainer.resume()
        reporter.say(f"continuing after step {trainer.state.step}")
    elif job.beginning is not None:
        begin(trainer, job.beginning)
        for remark in job.beginning.remarks:
            reporter.say(f"from the initial weights: {remark}")


def _prepare(job: Job, reporter: Reporter) -> Cases:
    config, cache = job.config, job.request.shared_cache
    warning = disk_warning(job.dataset.labelled, cache)
    if warning is not None:
        reporter.say(f"warning: {warning}")
    real, validation = (
        _prepared(job, part, reporter) for part in (job.split.training, job.split.validation)
    )
    real = tuple(weighted(case, config) for case in real)
    generated = _generated(config, job.request, reporter)
    more = f" and {len(generated)} generated ones" if generated else ""
    reporter.say(f"{len(real)} cases{more} to train on, {len(validation)} to validate on")
    return Cases(training=real + generated, validation=validation)


def _prepared(job: Job, files: Sequence[CaseFiles], reporter: Reporter) -> Prepared:
    with counting(reporter.console, "preparing cases") as count:
        return prepare_cases(
            files,
            job.dataset,
            job.config,
            job.request.shared_cache,
            progress=count,
            workers=min(_PREPARED_AT_A_TIME, usable_cpus()),
        )


def _generated(config: TrainConfig, request: RunRequest, reporter: Reporter) -> Prepared:
    cache = request.shared_cache
    made: Prepared = ()
    if config.phantoms:
        from training.data.phantoms import phantom_cases

        made += phantom_cases(config, cache)
    if config.synthetic:
        from training.synthesis.cases import synthetic_cases
        from training.synthesis.studies import find_material

        assert request.synthesis is not None, "check_fit has refused it"
        material = find_material(request.synthesis)
        with counting(reporter.console, "making synthetic studies") as count:
            made += synthetic_cases(config, cache, material, progress=count)
    return made


@contextmanager
def _at_work(folder: RunFolder, reporter: Reporter) -> Iterator[None]:
    """The run's lock and log, for the process that writes."""
    if not is_first():
        yield
        return
    with folder.at_work(reporter.say), _logging_to(folder):
        yield


@contextmanager
def _logging_to(folder: RunFolder) -> Iterator[None]:
    """Send this package's log records to the run's ``log.txt`` while it runs."""
    handler = folder.log_handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
