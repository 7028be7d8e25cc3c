"""One whole training run: folder → cases → trainer → final evaluation → bundle."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from model_core.errors import OptionError
from training.cases import prepare_cases
from training.config import TrainConfig
from training.export import ExportOptions, export_bundle
from training.plots import draw_curves
from training.reporter import Reporter, duration
from training.run_folder import RunFolder, write_json
from training.split import Split, find_split, restore_split
from training.trainer import Cases, RunOptions, Trainer


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Where the data is and where the results go."""

    data: Path
    results: Path
    name: str
    validation: tuple[str, ...] = ()
    """Names or unique endings of the validation cases."""
    cache: Path | None = None
    """Folder of prepared cases, to be shared by runs; ``None``: inside the run."""
    export: Path | None = None
    """Where the bundle goes; ``None``: ``bundle`` inside the run."""
    options: RunOptions = field(default_factory=RunOptions)


def run(config: TrainConfig, request: RunRequest, console: Console | None = None) -> RunFolder:
    """Start a new run and see it through."""
    _check_target(request)
    split = find_split(request.data, request.validation)
    folder = RunFolder.create(request.results, request.name)
    config = config.settled(request.options.device)
    write_json(folder.config, config.to_json())
    write_json(folder.split, split.to_json())
    _carry_out(config, split, folder=folder, request=request, console=console)
    return folder


def resume(
    settings: Mapping[str, Any], request: RunRequest, console: Console | None = None
) -> RunFolder:
    """Continue a run from its last checkpoint, with changed `settings` if any are given."""
    _check_target(request)
    folder = RunFolder.existing(request.results, request.name)
    config = TrainConfig.from_json(json.loads(folder.config.read_text())).with_settings(settings)
    config = config.settled(request.options.device)
    split = restore_split(request.data, json.loads(folder.split.read_text()))
    write_json(folder.config, config.to_json())
    _carry_out(config, split, folder=folder, request=request, console=console, resuming=True)
    return folder


def _check_target(request: RunRequest) -> None:
    """Refuse now what would fail after hours: a bundle's folder that is taken."""
    if request.export is not None and request.export.exists():
        raise OptionError(
            "export",
            expected="a folder that does not exist yet",
            got="one that does",
            way_out="Choose another folder, or export afterwards with: train export RUN --to DIR.",
        )


def _carry_out(
    config: TrainConfig,
    split: Split,
    *,
    folder: RunFolder,
    request: RunRequest,
    console: Console | None,
    resuming: bool = False,
) -> None:
    reporter = Reporter(console)
    with _logging_to(folder):
        reporter.say(f"{request.name}: {json.dumps(config.to_json())}")
        cases = _prepare(config, split, request.cache or folder.cache, reporter)
        trainer = Trainer(config, cases, folder=folder, options=request.options, reporter=reporter)
        if resuming:
            trainer.resume()
            reporter.say(f"continuing after step {trainer.state.step}")
        state = trainer.train()
        draw_curves(folder)
        reporter.say(f"{state.step} steps in {duration(state.elapsed)}")
        if trainer.stop_asked:
            reporter.say("stopped; continue with --resume")
            return
        _finish(split, folder=folder, request=request, reporter=reporter)


def _prepare(config: TrainConfig, split: Split, cache: Path, reporter: Reporter) -> Cases:
    training = prepare_cases(split.training, config, cache)
    if config.phantoms:
        from training.phantoms import phantom_cases

        training += phantom_cases(config, cache)
    validation = prepare_cases(split.validation, config, cache)
    reporter.say(f"{len(training)} cases to train on, {len(validation)} to validate on")
    return Cases(training=training, validation=validation)


def _finish(split: Split, *, folder: RunFolder, request: RunRequest, reporter: Reporter) -> None:
    """Judge the best weights on the studies' own grids and write them as a bundle."""
    if split.validation:
        reporter.say("final evaluation on the native grids …")
    target = request.export or folder.path / "bundle"
    options = ExportOptions(
        name=None if request.export else request.name,
        overwrite=request.export is None,
        device=request.options.device,
    )
    results = export_bundle(folder, target, options=options, studies=split.validation)
    for case_name, case in results.items():
        words = (f"{region} {score.dice:.3f}" for region, score in case.regions.items())
        reporter.say(f"{case_name} · {' · '.join(words)}")
    reporter.say(f"bundle written: {target}")


@contextmanager
def _logging_to(folder: RunFolder) -> Iterator[None]:
    """Send this package's log records to the run's ``log.txt`` while it runs."""
    logger, handler = logging.getLogger("training"), folder.log_handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
